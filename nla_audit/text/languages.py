"""Languages: which words of a text are function words, and whether its nouns are capitalised.

How long a part of a text is, is told by its content words. An explanation in another language than
English would seem half as long again, were "der", "que" and "van" content. Only languages that
cut words by blanks and are known here are told apart; others are read as English.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nla_audit.text.words import FUNCTION_WORDS, words


@dataclass(frozen=True, eq=False)
class Language:
    """A language as far as texts are read by it.

    Attributes:
        name: in English.
        own: its articles, prepositions, pronouns, auxiliaries and conjunctions, in lower case.
        function_words: those, and English ones, which stand in texts of any language.
        often: of which hardly a text has none.
        capitalises_nouns: whether every noun is capitalised, so that a capital tells no name.
        inflects_names: whether a name has other letters in another case.
        ordinals_end_in_a_stop: whether "3." is what English writes as "3rd".
    """

    name: str
    own: frozenset[str]
    function_words: frozenset[str]
    often: frozenset[str] = frozenset()
    capitalises_nouns: bool = False
    inflects_names: bool = False
    ordinals_end_in_a_stop: bool = False

    @property
    def shows_names(self) -> bool:
        """Whether a name is told by its capital, and is the same wherever it stands."""
        return not self.capitalises_nouns and not self.inflects_names


ENGLISH = Language("English", FUNCTION_WORDS, FUNCTION_WORDS)


def _other(name: str, often: str, function_words: str, **traits: bool) -> Language:
    own = frozenset([*function_words.split(), *often.split()])
    return Language(name, own, own | FUNCTION_WORDS, frozenset(often.split()), **traits)


OTHERS = (
    _other(
        "German",
        "der die das und den ein eine mit ist von",
        """dem des einen einem einer eines kein keine keinen keinem keiner oder nicht sind war waren
        wird werden wurde wurden worden hat haben hatte hatten sei sein seine seinen seinem seiner
        kann können soll sollen muss müssen darf dürfen will wollen vom zu zum zur in im ins an am
        ans auf für als auch wie dass daß sich nach vor bei beim aus noch nur über unter durch
        gegen ohne bis seit während zwischen wegen um ab er sie es ihr ihre ihren ihrem ihrer ihm
        ihn ihnen wir uns unser ich mich mir mein du dich dir dein man wer was welche welcher
        welches dieser diese dieses diesen diesem jeder jede jedes jener jene aber sondern denn
        weil wenn ob so da dann hier dort doch schon sehr mehr""",
        capitalises_nouns=True,
        ordinals_end_in_a_stop=True,
    ),
    _other(
        "French",
        "le la les de des et un une du dans est",
        """à au aux en sur sous par pour avec sans entre vers chez depuis pendant selon contre avant
        après ou ni mais donc car que qui quoi dont où quand comme si ne pas non plus très aussi
        encore déjà se s sa son ses leur leurs ce c cet cette ces celui celle ceux celles il elle
        ils elles on nous vous je j tu me m te t y lui eux mon ma mes ton ta tes notre nos votre
        vos l d n qu sont était étaient être été a ont avait avaient avoir fait peut doit tout
        toute tous toutes d'un d'une qu'il qu'elle qu'on qu'un qu'une c'est n'est s'est l'on n'a""",
    ),
    _other(
        "Spanish",
        "el la los las de del que y en un una con",
        """unos unas a al por para sin sobre entre hasta desde hacia según contra ante bajo durante
        tras e o u ni pero sino como si no se lo le les su sus mi mis tu tus nos nuestro nuestra
        yo él ella ellos ellas usted ustedes me te es son está están era eran fue fueron ser estar
        sido siendo ha han había haber hay tiene tienen puede pueden debe muy más menos ya también
        porque cuando donde dónde quien quién cual cuál cuyo cuya este esta esto estos estas ese
        esa eso esos esas aquel aquella cada todo toda todos todas otro otra otros otras""",
    ),
    _other(
        "Italian",
        "il la di che un una del della con è",
        """e per lo i gli le uno dello dei degli delle a al allo alla ai agli alle da dal dallo
        dalla dai dagli dalle in nel nello nella nei negli nelle su sul sullo sulla sui sugli sulle
        tra fra senza sotto sopra dopo prima verso contro durante o né ma se come non più meno molto
        anche ancora già si ci vi ne lui lei loro noi voi io tu mi ti suo sua suoi sue mio mia tuo
        nostro questo questa questi queste quello quella quelli quelle sono era erano essere stato
        stata ha hanno aveva avere può deve chi cui quale quali dove quando perché ogni tutto
        tutta tutti tutte altro altra altri dell'altro un'altra c'è""",
    ),
    _other(
        "Portuguese",
        "os de da que em um uma com não é",
        """o a as do e dos das no na nos nas ao à aos às por pelo pela pelos pelas para sem sobre
        entre até desde contra durante ou nem mas se como mais menos muito também já ainda lhe
        lhes seu sua seus suas meu minha teu nosso nossa ele ela eles elas eu tu você vocês nós me
        te são era eram foi foram ser estar está estão sido há tem têm tinha ter pode podem deve
        quando onde quem qual cujo cuja porque este esta isto estes estas esse essa isso esses
        essas aquele aquela aquilo cada todo toda todos todas outro outra outros outras num numa""",
    ),
    _other(
        "Dutch",
        "de het een en van dat op met niet voor",
        """is der den des in aan te ten ter uit bij door over onder tussen tegen zonder naar tot om
        als maar of want dan toen ook nog al wel geen zijn was waren wordt worden werd werden
        geworden heeft hebben had hadden kan kunnen moet moeten mag zal zullen zou zouden hij zij
        ze wij we ik jij je u hem haar hun ons onze mijn jouw uw zich er hier daar waar wie wat
        welke welk die dit deze die elke elk alle andere zo zeer meer""",
    ),
    _other(
        "Russian",
        "и в на не что с по из как это",
        """а но или же ли бы к ко о об от до за у для при без над под между через перед во со его её
        ее их он она оно они мы вы я ты мне меня тебя нас вас им ему ей мой твой наш ваш свой этот
        эта эти этой этого тот та те того той который которая которое которые которого чем чтобы
        если когда где кто был была было были быть есть будет уже ещё еще только также так все всё
        весь вся""",
        inflects_names=True,
    ),
    _other(
        "Polish",
        "w na z że się nie jest od",
        """i do o a ale lub albo oraz ani za po przed przez pod nad między bez dla u przy ku ze we
        czy jak jako gdy kiedy gdzie kto co który która które których którym jego jej ich on ona
        ono oni my wy ja ty mu im go nas was mnie swój swoje swoją ten ta to te tego tej tym są
        był była było były być będzie może już jeszcze także też tylko tak""",
        inflects_names=True,
    ),
)
_OFTEN = frozenset().union(*(language.often for language in OTHERS))
#: One word in so many is a function word of the text's language and none of English, and so many
#: different ones are there that are neither English words otherwise nor parts of foreign names.
_SHARE, _DIFFERENT = 20, 2
_NO_EVIDENCE = frozenset(
    """a also am angle art bald car come comme como con dance dare data de dei del dela der des
    dem den di die do dos door du e el en fast fra gut hat hem her here hier hun la le les los
    lui mal man me met min mit mon nach net nog non not nun on op ought par pas pass per plus
    pour que rat rot sans san se sera si sin son sous tag tant te ten todo ton une van ver via
    von vol wand war was wat wer wir wie zo zu""".split()
)


@lru_cache(maxsize=1 << 13)
def language_of(text: str) -> Language:
    """The language of a whole text; a part of it is often too short to tell."""
    there = text.split()
    if _OFTEN.isdisjoint(there):
        return ENGLISH
    likely = [one for one in OTHERS if not one.often.isdisjoint(there)]
    found = words(text)
    english = [word for word in found if word in FUNCTION_WORDS]

    def foreign(language: Language) -> int:
        return sum(map(language.function_words.__contains__, found)) - len(english)

    language = max(likely, key=foreign)
    own = foreign(language)
    strange = sum(word not in language.own for word in english)
    evidence = language.own.intersection(found) - FUNCTION_WORDS - _NO_EVIDENCE
    shown = len(evidence) >= _DIFFERENT and own > strange and _SHARE * own >= len(found)
    return language if shown else ENGLISH
