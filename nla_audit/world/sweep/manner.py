"""How planted texts are put: registers, momentum, expected content, syntax, last words."""

from __future__ import annotations

from dataclasses import dataclass

from nla_audit.world.sweep.phrasebook import Value, options, value


@dataclass(frozen=True, slots=True)
class Structure:
    """A syntactic constraint, with the source fragment that raises it (``{noun}`` is filled)."""

    forms: Value
    #: Opens a source sentence; quoted verbatim by the claim.
    fragment: str
    #: Completes that sentence, from the punctuation or space after the fragment on.
    rest: str


@dataclass(frozen=True, slots=True)
class FinalWord:
    """A word on which the source breaks off, and the role it plays there."""

    word: str
    role: Value
    #: What comes before it (``{noun}`` and ``{when}`` are filled).
    leads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """Content that should come next, with guesses at its words that no source contains."""

    forms: Value
    guesses: tuple[str, ...]


STYLES: tuple[Value, ...] = (
    value(
        "a dry and impersonal tone|an impersonal and matter-of-fact tone",
        "impersonal tone|detached",
    ),
    value(
        "a warm and chatty register|a friendly and conversational register",
        "chatty register|friendly",
    ),
    value("ironic and slightly mocking prose|prose with gentle mockery", "ironic prose|sarcasm"),
    value(
        "formal legalistic diction|formal diction borrowed from statutes", "formal diction|lawyerly"
    ),
    value(
        "breathless promotional style|an excited and selling style", "promotional style|sales hype"
    ),
    value(
        "measured academic style with hedging|cautious academic style",
        "academic style|scholarly caution",
    ),
    value(
        "nostalgic first-person voice|a wistful first-person voice",
        "nostalgic voice|looking back fondly",
    ),
    value("blunt colloquial register|rough and colloquial register", "colloquial register|slangy"),
    value(
        "technical jargon for specialists|dense specialist jargon",
        "technical jargon|expert vocabulary",
    ),
    value("an urgent warning tone|a tone of alarm and urgency", "urgent tone|alarmed"),
    value("lyrical prose rich in images|poetic and image-laden prose", "lyrical prose|poetic"),
    value("neutral third-person voice|an even third-person voice", "third-person voice|neutral"),
    value("a patient teaching tone|the tone of a patient teacher", "teaching tone|instructive"),
    value("terse telegraphic style|a clipped and telegraphic style", "telegraphic style|clipped"),
    value("reverent and solemn tone|a tone of solemn respect", "solemn tone|reverent"),
    value("playful humorous voice|a joking and humorous voice", "humorous voice|jokey"),
    value(
        "bureaucratic register full of passives|stiff bureaucratic register",
        "bureaucratic register|officialese",
    ),
    value(
        "confident persuasive style|a persuasive and self-assured style",
        "persuasive style|self-assured",
    ),
)

MOMENTA: tuple[Value, ...] = (
    value("an escalating dispute|a dispute that keeps escalating", "escalating dispute|quarrel"),
    value(
        "a slow recovery after a setback|a setback and the slow recovery from it",
        "slow recovery|bouncing back",
    ),
    value(
        "a move from problem to remedy|a problem first and then its remedy",
        "problem then remedy|towards a fix",
    ),
    value(
        "growing doubt about the plan|a plan that meets more and more doubt",
        "growing doubt|scepticism",
    ),
    value(
        "a chronological march through the years|events told year by year",
        "year by year|chronology",
    ),
    value(
        "a comparison of two rivals|two rivals weighed one with the other",
        "two rivals|head to head",
    ),
    value(
        "a mystery that nears its answer|a mystery close to being solved",
        "mystery near its answer|revelation",
    ),
    value(
        "praise giving way to criticism|criticism that replaces early praise",
        "praise to criticism|souring",
    ),
    value(
        "a build-up of evidence for one claim|evidence piled up for a single claim",
        "evidence piled up|making the case",
    ),
    value(
        "a journey towards a destination|travel that closes in on a destination", "journey|en route"
    ),
    value(
        "a general rule and then its exceptions|exceptions that qualify a general rule",
        "rule then exceptions|caveats",
    ),
    value(
        "preparations for a decisive day|a decisive day being prepared",
        "decisive day|getting ready",
    ),
    value(
        "a warning about rising costs|costs that rise and a warning about them",
        "rising costs|price alarm",
    ),
    value(
        "a public apology in stages|the stages of a public apology", "public apology|saying sorry"
    ),
    value(
        "a handover from one generation to another|one generation making way for another",
        "generation handover|succession",
    ),
    value(
        "an experiment from setup to outcome|the outcome of an experiment drawing near",
        "experiment outcome|trial results",
    ),
)

EXPECTATIONS: tuple[Expectation, ...] = (
    Expectation(
        value("the size of the final bill|how large the final bill is", "final bill|total charge"),
        ("well over budget", "a record sum"),
    ),
    Expectation(
        value("the date on which work resumes|when work resumes", "date work resumes|restart"),
        ("early in spring", "before the holidays"),
    ),
    Expectation(
        value(
            "an explanation of the failure|why the failure happened",
            "failure explained|what went wrong",
        ),
        ("a bad valve", "human error"),
    ),
    Expectation(
        value(
            "a direct quotation from an expert|an expert quoted in full",
            "expert quotation|spokesperson remark",
        ),
        ("we were stunned", "nobody knew"),
    ),
    Expectation(
        value("the winner of the contest|who won the contest", "contest winner|victor"),
        ("the underdog", "a narrow victory"),
    ),
    Expectation(
        value(
            "a recommendation for readers|advice that readers can use",
            "advice for readers|practical tip",
        ),
        ("check twice", "ask a specialist"),
    ),
    Expectation(
        value(
            "the reaction of local residents|how local residents reacted",
            "residents reacting|neighbour response",
        ),
        ("much division", "cautious joy"),
    ),
    Expectation(
        value(
            "the discovery of a hidden flaw|a hidden flaw being discovered",
            "hidden flaw|secret defect",
        ),
        ("a hairline crack", "missing bolts"),
    ),
    Expectation(
        value(
            "a second example of the same sort|another example of that sort",
            "second example|further instance",
        ),
        ("a similar case", "one more sample"),
    ),
    Expectation(
        value(
            "the official position of the ministry|where the ministry stands",
            "ministry position|government stance",
        ),
        ("no comment", "full support"),
    ),
    Expectation(
        value(
            "a definition of the key term|what the key term means",
            "key term definition|glossary meaning",
        ),
        ("we mean by this", "put simply"),
    ),
    Expectation(
        value(
            "the emotional response of the speaker|what the speaker feels",
            "speaker emotion|feelings",
        ),
        ("quiet relief", "bitter regret"),
    ),
    Expectation(
        value(
            "a percentage that measures the change|the change given in percent",
            "percentage change|rate of growth",
        ),
        ("roughly half", "a modest rise"),
    ),
    Expectation(
        value("the name of the successor|who the successor is", "successor name|replacement"),
        ("a trusted deputy", "an outsider"),
    ),
    Expectation(
        value(
            "the consequences for wildlife|what it means for wildlife",
            "wildlife consequences|harm to animals",
        ),
        ("fewer nests", "lost habitat"),
    ),
    Expectation(
        value(
            "a physical description of the place|how the place looks", "place description|scenery"
        ),
        ("narrow and dim", "bathed in light"),
    ),
    Expectation(
        value(
            "the legal grounds of the ruling|the law behind the ruling", "legal grounds|court basis"
        ),
        ("breach of contract", "undue delay"),
    ),
    Expectation(
        value(
            "a promise of further funding|more funding being promised",
            "further funding|extra money",
        ),
        ("a new grant", "matched donations"),
    ),
)

STRUCTURES: tuple[Structure, ...] = (
    Structure(
        value(
            "a concessive clause without its main clause|an although-clause left open",
            "open although-clause|concession",
        ),
        "Although the {noun} looked sound",
        ", many thought otherwise",
    ),
    Structure(
        value(
            "the first half of a not-only clause pair|a lone not-only clause",
            "not-only clause|correlative pair",
        ),
        "Not only the {noun} was affected",
        ", but much else beside it",
    ),
    Structure(
        value(
            "a conditional clause without its outcome|an if-clause left hanging",
            "conditional clause|if-then frame",
        ),
        "If the {noun} had been ready",
        ", things would have gone better",
    ),
    Structure(
        value(
            "a series of infinitives of equal rank|infinitives strung in a row",
            "infinitive series|to-verb chain",
        ),
        "To mend the {noun} and to keep it",
        " was the whole plan",
    ),
    Structure(
        value(
            "a noun in apposition that must be closed|an apposition around a noun",
            "noun apposition|renaming aside",
        ),
        "The {noun} known to everyone here",
        " had stood for decades",
    ),
    Structure(
        value(
            "a passive verb that lacks its agent|a passive verb without an agent",
            "passive verb|agent missing",
        ),
        "The {noun} was taken away",
        " in the small hours",
    ),
    Structure(
        value(
            "a temporal clause placed in front|a when-clause at the front",
            "temporal clause|when-opener",
        ),
        "When the {noun} finally opened",
        ", there was a small crowd",
    ),
    Structure(
        value(
            "an inverted verb after a negative adverb|verb inversion behind a negation",
            "inverted verb|negative fronting",
        ),
        "Never had the {noun} been so busy",
        ", or so badly run",
    ),
    Structure(
        value(
            "a comparative clause that calls for than|a comparative adjective in a clause",
            "comparative clause|more-than frame",
        ),
        "The {noun} proved far more costly",
        " than anybody had guessed",
    ),
    Structure(
        value(
            "a cleft sentence that puts weight on a noun|a cleft sentence",
            "cleft sentence|it-was focus",
        ),
        "It was the {noun} they cared about",
        ", and little besides",
    ),
    Structure(
        value(
            "a participle hung before the main verb|a participial opening",
            "participle opening|ing-form start",
        ),
        "Standing near the {noun} at dawn",
        ", they counted their losses",
    ),
    Structure(
        value(
            "a colon that promises an enumeration|an enumeration promised by a colon",
            "colon enumeration|itemised series",
        ),
        "The {noun} lacked three things",
        ": space and light and time",
    ),
    Structure(
        value(
            "an indirect question inside a sentence|a whether-clause inside a sentence",
            "indirect question|whether-frame",
        ),
        "Whether the {noun} can be saved",
        " remains an open matter",
    ),
    Structure(
        value(
            "a sentence that opens with a prepositional block|a fronted preposition block",
            "preposition block|locative start",
        ),
        "Beneath the {noun} in the dark",
        " lay something else",
    ),
)

#: When that happened on which the source breaks off.
WHEN: tuple[str, ...] = options(
    "on Monday|last Tuesday|on Friday night|this autumn|late in June|after lunch|at noon|in January"
    "|two weeks ago|on Sunday|before dawn|in early March|that evening|over the weekend|this week"
    "|in mid October|on Thursday|last winter"
)

FINAL_WORDS: tuple[FinalWord, ...] = (
    FinalWord(
        "that",
        value(
            "a conjunction introducing reported content|a complementizer",
            "complementizer|conjunction",
        ),
        (
            "the committee said of the {noun} {when}",
            "an owner of the {noun} claimed {when}",
            "critics of the {noun} warned {when}",
        ),
    ),
    FinalWord(
        "of",
        value(
            "a preposition linking a noun to its complement|a genitive preposition",
            "genitive link|preposition",
        ),
        (
            "the {noun} seen {when} was a rare kind",
            "people near the {noun} spoke {when}",
            "the keeper of the {noun} grew tired {when}",
        ),
    ),
    FinalWord(
        "the",
        value(
            "a definite article before an unnamed noun|a definite determiner",
            "definite article|determiner",
        ),
        (
            "workers left the {noun} {when} and went to",
            "the {noun} was moved {when} towards",
            "a visitor to the {noun} found {when}",
        ),
    ),
    FinalWord(
        "including",
        value(
            "a participle opening a list of members|a list opener", "list opener|starts examples"
        ),
        (
            "several faults of the {noun} came up {when}",
            "the {noun} drew guests {when}",
            "parts of the {noun} were sold {when}",
        ),
    ),
    FinalWord(
        "because",
        value(
            "a causal conjunction before a reason|a conjunction of cause",
            "causal conjunction|reason marker",
        ),
        (
            "the {noun} was shut {when}",
            "nobody touched the {noun} {when}",
            "they praised the {noun} {when}",
        ),
    ),
    FinalWord(
        "to",
        value(
            "an infinitive marker before a verb|the particle of an infinitive",
            "infinitive marker|verb particle",
        ),
        (
            "the crew at the {noun} was asked {when}",
            "they used the {noun} {when}",
            "it took the {noun} two attempts {when}",
        ),
    ),
    FinalWord(
        "than",
        value(
            "a comparative particle before a standard|the hinge of a comparison",
            "comparative hinge|comparison word",
        ),
        (
            "the {noun} ran better {when}",
            "they liked the {noun} less {when}",
            "the {noun} looked older {when}",
        ),
    ),
    FinalWord(
        "a",
        value(
            "an indefinite article before a new noun|an indefinite determiner",
            "indefinite article|new referent",
        ),
        (
            "inside the {noun} they found {when}",
            "the {noun} was traded {when} for",
            "beside the {noun} stood {when}",
        ),
    ),
    FinalWord(
        "who",
        value(
            "a pronoun opening a clause about a person|a personal relative pronoun",
            "relative pronoun|person clause",
        ),
        (
            "the {noun} was shown {when} to a man",
            "we met at the {noun} {when} a woman",
            "the {noun} belonged {when} to a family",
        ),
    ),
    FinalWord(
        "not",
        value("a negation that leaves the verb open|a negative particle", "negation|denial word"),
        (
            "the {noun} seen {when} was",
            "owners of the {noun} did {when}",
            "fans of the {noun} could {when}",
        ),
    ),
    FinalWord(
        "and",
        value(
            "a conjunction that adds an equal member|a coordinating link",
            "coordination|additive link",
        ),
        (
            "they cleaned the {noun} {when}",
            "the {noun} was weighed {when}",
            "rain fell on the {noun} {when}",
        ),
    ),
    FinalWord(
        "with",
        value(
            "a preposition of company or means|a comitative preposition", "comitative|means word"
        ),
        (
            "the {noun} was repaired {when}",
            "they filled the {noun} {when}",
            "he came to the {noun} {when}",
        ),
    ),
    FinalWord(
        "for",
        value(
            "a preposition announcing a purpose|a benefactive preposition",
            "purpose word|benefactive",
        ),
        (
            "the {noun} was kept {when}",
            "money for the {noun} was raised {when}",
            "they left the {noun} {when}",
        ),
    ),
    FinalWord(
        "which",
        value(
            "a pronoun for a thing just named|a non-personal relative pronoun",
            "thing pronoun|relative word",
        ),
        (
            "the {noun} had {when} a lid",
            "next to the {noun} ran {when} a wire",
            "the {noun} needed {when} a part",
        ),
    ),
    FinalWord(
        "from",
        value("a preposition marking an origin|a source preposition", "origin marker|source word"),
        (
            "the {noun} was rescued {when}",
            "pieces of the {noun} came {when}",
            "a letter about the {noun} arrived {when}",
        ),
    ),
    FinalWord(
        "when",
        value(
            "a temporal conjunction before an event|a time conjunction",
            "time conjunction|event marker",
        ),
        (
            "the {noun} had cooled {when}",
            "they were at the {noun} {when}",
            "the {noun} broke {when}",
        ),
    ),
)
