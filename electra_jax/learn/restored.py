"""The state of a checkpoint, read by Orbax, in the form that earlier versions gave it, too."""

from typing import Any

import orbax.checkpoint as ocp

from electra_jax.learn import arrays

# The name of an empty "carried" in checkpoints of earlier versions; those of fine-tuning have none.
_EARLIER = "extra"


def restore(reader: ocp.Checkpointer, folder: Any, abstract_state: Any) -> Any:
    """The state of a checkpoint, whose arrays are known to be those of `abstract_state`, as arrays of our own.

    Orbax also compares empty parts: where nothing is carried, that may be as earlier versions had it.
    """
    forms = [abstract_state]
    if not abstract_state.get("carried", True):
        rest = {name: tree for name, tree in abstract_state.items() if name != "carried"}
        forms += [rest | {_EARLIER: {}}, rest]
    for form in forms:
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(form))
            state = arrays.owned(reader.restore(folder, args=items).state)
        except ValueError:
            if form is forms[-1]:
                raise
            continue
        state.pop(_EARLIER, None)
        return {"carried": {}} | state
    raise AssertionError("one of the forms was restored, or its error raised")
