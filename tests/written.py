"""Text and vocabularies for the tests, written by rule: four languages, the same at every call.

Sentences have the marks of real text (accents, quotes, numbers, hyphens, two cases, several scripts) and words as
uneven as real ones: the n-th of a list is drawn in proportion to 1 / (n + 2). They mean little.
"""

import functools
import itertools
import random

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

_ENGLISH = {
    "N": """house river man woman town year ship road king book war garden school letter child village family
        mountain engine station winter story church island company music field window market law song bridge
        army teacher horse forest summer paper kitchen coast farmer lake hospital daughter machine captain harbour
        library painting museum valley railway doctor parliament festival bird novel theatre castle newspaper
        neighbour café naïveté façade shoemaker lighthouse grandfather railwayman co-operation mother-in-law""",
    "V": """saw found built left crossed wrote heard took made kept lost sold followed carried remembered opened
        bought described visited painted repaired defended measured destroyed inherited rediscovered translated""",
    "A": """old new small great long young white dark early quiet wooden famous northern cold heavy distant empty
        royal narrow strange green former bright unknown wealthy medieval eighteenth-century half-finished""",
    "P": "in near behind under beyond across from of towards beside throughout",
    "W": """Mary John London Anna Europe Thomas Africa Paris Elizabeth Zürich Henry Dvořák Edinburgh Canada São-Paulo
        O'Brien NASA Wellington Łódź McDonald""",
    "T": "then later again once often soon slowly nevertheless unfortunately meanwhile",
}
_ENGLISH_FORMS = (
    "The {A} {N} {P} the {N} {V} a {N}.",
    "{W} {V} the {N} and {V} its {A} {N}, but not the {N}.",
    "In {Y} the {N} of {W} {V} {n} {N}s.",
    "{T}, {W} and {W} {V} the {A}, {A} {N} (see the {N}).",
    '"Who {V} my {N}?" asked {W}; nobody in the {N} knew.',
    "It wasn't the {N} that {W} {V}: it was {n}% of a {N}!",
    "By {Y}, {n} of the {n} {A} {N}s {P} {W} had been {V} - {T}.",
    "{W}'s {N} {V} {W}'s {N} {P} the {N} {P} the {A} {N}.",
)
_GERMAN = {
    "N": """Straße Fluss Haus Mädchen König Jahr Garten Tür Schloss Bäcker Wörterbuch Größe Bahnhof Kirche Insel Fuß
        Universität Geschichte Regierung Donaudampfschifffahrt Geburtstag Wald Fenster Brücke Maß Öl Süden Kälte""",
    "V": "sah baute fand schloss hörte grüßte verließ überquerte begann wußte fährt trägt schrieb vergaß",
    "A": "alte große kleine schöne weiße grüne früh müde süße letzte berühmte gewöhnliche",
    "W": "Müller Köln Anna Österreich Goethe Zürich Jürgen Weiß Thüringen",
}
_GERMAN_FORMS = (
    "Die {A} {N} {V} das {N}.",
    "Im Jahr {Y} {V} {W} eine {A} {N}, aber {n} {N} nicht.",
    "„Wer {V} die {N}?“, fragte {W} - niemand.",
    "{W} {V} {n},5 % der {N}; dann {V} {W} die {A} {N}!",
)
_KOREAN = {
    "N": "사람 학교 나라 도시 강 산 바다 책 역사 음악 영화 시간 대학교 정부 문화 아이 선생님 회사 친구 집 서울 한국 닭",
    "J": "은 는 이 가 을 를 에 에서 의 으로 와 과 도",
    "V": "갔다 보았다 만들었다 읽었다 시작하였다 있었다 없었다 떠났다 알려져 있다 태어났다 좋아한다 앉았다",
    "A": "큰 작은 오래된 새로운 아름다운 유명한 푸른 밝은",
}
_KOREAN_FORMS = (
    "{A} {N}{J} {N}{J} {V}.",
    "{Y}년 {n}월 {N}{J} {N}{J} {A} {N}{J} {V}.",
    "{N}{J} {N}({Y}년)에서 {V}, 그리고 {N}{J} {V}!",
)
_CHINESE = {
    "N": """人 中国 大学 城市 学生 老师 时间 历史 音乐 电影 河 山 海 书 国家 政府 文化 孩子 公司 朋友 房子 花 北京 上海
        世界 经济 科学 语言 龜 鐵路 圖書館 臺灣 問題 飛機""",
    "V": "是 有 在 去 看见 建立 发现 开始 写 喜欢 离开 学习 出生于 認識 經過",
    "A": "大 小 新 老 长 重要 美丽 著名 红 白 舊",
}
_CHINESE_FORMS = (
    "{A}的{N}{V}{N}。",
    "{Y}年{n}月,{N}{V}了{A}{N},也{V}{N}。",
    "“{N}和{N}”:{n}个{N}{V}GDP的{n}%!",
    "{N}、{N}与{N}都{V}{N},但不{V}{A}的{N}?",
)
_LANGUAGES = {
    "english": (_ENGLISH, _ENGLISH_FORMS, " "),
    "books": (_ENGLISH, _ENGLISH_FORMS, " "),
    "german": (_GERMAN, _GERMAN_FORMS, " "),
    "korean": (_KOREAN, _KOREAN_FORMS, " "),
    "chinese": (_CHINESE, _CHINESE_FORMS, ""),
}
_LENGTHS = (1, 2, 3, 3, 4, 5, 6, 8, 12, 60)  # sentences of a paragraph


@functools.cache
def _paragraphs(language: str, count: int) -> tuple[str, ...]:
    words, forms, space = _LANGUAGES[language]
    lists = {kind: text.split() for kind, text in words.items()}
    weights = {kind: [1 / (n + 2) for n in range(len(x))] for kind, x in lists.items()}
    draw = random.Random(language)

    def sentence() -> str:
        form = draw.choice(forms)
        for kind in lists:
            while f"{{{kind}}}" in form:
                (word,) = draw.choices(lists[kind], weights[kind])
                form = form.replace(f"{{{kind}}}", word, 1)
        while "{Y}" in form:
            form = form.replace("{Y}", str(draw.randrange(1500, 2030)), 1)
        while "{n}" in form:
            form = form.replace("{n}", str(int(draw.paretovariate(0.5))), 1)
        return form[0].upper() + form[1:]

    lengths = itertools.cycle(_LENGTHS)
    return tuple(space.join(sentence() for _ in range(next(lengths))) for _ in range(count))


def paragraphs(language: str, count: int) -> list[str]:
    """Paragraphs of 1 to 60 sentences in english, books (English too), german, korean or chinese."""
    return list(_paragraphs(language, count))


def entries(language: str, size: int, lowercase: bool) -> list[str]:
    """A WordPiece vocabulary of this size: special tokens, characters, words and endings of the paragraphs, then
    invented words.
    """
    text = " ".join(
        paragraphs(language, 400) + paragraphs("german" if lowercase else "english", 60)
    )
    text = f"{text} {text.lower()}".replace("\n", " ")
    text = text.lower() if lowercase else text
    characters = sorted(set(text) | {chr(c) for c in range(33, 127)} - {" "})
    if language == "chinese":
        characters += [chr(c) for c in range(0x4E00, 0x9FA6, 7)]
    characters = [c for c in dict.fromkeys(characters) if not c.isspace()]
    words = [w for w in dict.fromkeys(_words(text)) if len(w) > 1 and w.isalpha()]
    kept = words[::2]  # of the others the first half is a word and the second an ending
    halves = [x for w in words[1::2] for x in (w[: len(w) // 2], "##" + w[len(w) // 2 :])]
    known = [*characters, *("##" + c for c in characters), *kept, *halves]
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "en", "or")]
    invented = ("".join(x) for n in (3, 4) for x in itertools.product(syllables, repeat=n))
    found = dict.fromkeys(itertools.chain(SPECIALS, known))
    for word in invented:
        if len(found) >= size:
            break
        found.setdefault(word)
    return list(found)[:size]


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text).split()
