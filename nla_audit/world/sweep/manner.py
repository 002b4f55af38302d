"""How planted texts are put: registers, momentum, expected content, syntax, last words.

A list is one text, in which each entry begins at a line that is not indented; ``|`` stands between
what may take each other's place.
"""

from __future__ import annotations

from dataclasses import dataclass

from nla_audit.world.sweep.phrasebook import Value, entries, options, value


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


STYLES: tuple[Value, ...] = tuple(
    value(*forms)
    for forms in entries("""
a dry and impersonal tone|an impersonal and matter-of-fact tone
    impersonal tone|detached
a warm and chatty register|a friendly and conversational register
    chatty register|friendly
ironic and slightly mocking prose|prose with gentle mockery
    ironic prose|sarcasm
formal legalistic diction|formal diction borrowed from statutes
    formal diction|lawyerly
breathless promotional style|an excited and selling style
    promotional style|sales hype
measured academic style with hedging|cautious academic style
    academic style|scholarly caution
nostalgic first-person voice|a wistful first-person voice
    nostalgic voice|looking back fondly
blunt colloquial register|rough and colloquial register
    colloquial register|slangy
technical jargon for specialists|dense specialist jargon
    technical jargon|expert vocabulary
an urgent warning tone|a tone of alarm and urgency
    urgent tone|alarmed
lyrical prose rich in images|poetic and image-laden prose
    lyrical prose|poetic
neutral third-person voice|an even third-person voice
    third-person voice|neutral
a patient teaching tone|the tone of a patient teacher
    teaching tone|instructive
terse telegraphic style|a clipped and telegraphic style
    telegraphic style|clipped
reverent and solemn tone|a tone of solemn respect
    solemn tone|reverent
playful humorous voice|a joking and humorous voice
    humorous voice|jokey
bureaucratic register full of passives|stiff bureaucratic register
    bureaucratic register|officialese
confident persuasive style|a persuasive and self-assured style
    persuasive style|self-assured
""")
)

MOMENTA: tuple[Value, ...] = tuple(
    value(*forms)
    for forms in entries("""
an escalating dispute|a dispute that keeps escalating
    escalating dispute|quarrel
a slow recovery after a setback|a setback and the slow recovery from it
    slow recovery|bouncing back
a move from problem to remedy|a problem first and then its remedy
    problem then remedy|towards a fix
growing doubt about the plan|a plan that meets more and more doubt
    growing doubt|scepticism
a chronological march through the years|events told year by year
    year by year|chronology
a comparison of two rivals|two rivals weighed one with the other
    two rivals|head to head
a mystery that nears its answer|a mystery close to being solved
    mystery near its answer|revelation
praise giving way to criticism|criticism that replaces early praise
    praise to criticism|souring
a build-up of evidence for one claim|evidence piled up for a single claim
    evidence piled up|making the case
a journey towards a destination|travel that closes in on a destination
    journey|en route
a general rule and then its exceptions|exceptions that qualify a general rule
    rule then exceptions|caveats
preparations for a decisive day|a decisive day being prepared
    decisive day|getting ready
a warning about rising costs|costs that rise and a warning about them
    rising costs|price alarm
a public apology in stages|the stages of a public apology
    public apology|saying sorry
a handover from one generation to another|one generation making way for another
    generation handover|succession
an experiment from setup to outcome|the outcome of an experiment drawing near
    experiment outcome|trial results
""")
)

#: The last line of an entry: guesses.
EXPECTATIONS: tuple[Expectation, ...] = tuple(
    Expectation(value(*forms), options(guesses))
    for *forms, guesses in entries("""
the size of the final bill|how large the final bill is
    final bill|total charge
    well over budget|a record sum
the date on which work resumes|when work resumes
    date work resumes|restart
    early in spring|before the holidays
an explanation of the failure|why the failure happened
    failure explained|what went wrong
    a bad valve|human error
a direct quotation from an expert|an expert quoted in full
    expert quotation|spokesperson remark
    we were stunned|nobody knew
the winner of the contest|who won the contest
    contest winner|victor
    the underdog|a narrow victory
a recommendation for readers|advice that readers can use
    advice for readers|practical tip
    check twice|ask a specialist
the reaction of local residents|how local residents reacted
    residents reacting|neighbour response
    much division|cautious joy
the discovery of a hidden flaw|a hidden flaw being discovered
    hidden flaw|secret defect
    a hairline crack|missing bolts
a second example of the same sort|another example of that sort
    second example|further instance
    a similar case|one more sample
the official position of the ministry|where the ministry stands
    ministry position|government stance
    no comment|full support
a definition of the key term|what the key term means
    key term definition|glossary meaning
    we mean by this|put simply
the emotional response of the speaker|what the speaker feels
    speaker emotion|feelings
    quiet relief|bitter regret
a percentage that measures the change|the change given in percent
    percentage change|rate of growth
    roughly half|a modest rise
the name of the successor|who the successor is
    successor name|replacement
    a trusted deputy|an outsider
the consequences for wildlife|what it means for wildlife
    wildlife consequences|harm to animals
    fewer nests|lost habitat
a physical description of the place|how the place looks
    place description|scenery
    narrow and dim|bathed in light
the legal grounds of the ruling|the law behind the ruling
    legal grounds|court basis
    breach of contract|undue delay
a promise of further funding|more funding being promised
    further funding|extra money
    a new grant|matched donations
""")
)

#: The last line of an entry: the fragment and the rest.
STRUCTURES: tuple[Structure, ...] = tuple(
    Structure(value(*forms), *sentence.split("|"))
    for *forms, sentence in entries("""
a concessive clause without its main clause|an although-clause left open
    open although-clause|concession
    Although the {noun} looked sound|, many thought otherwise
the first half of a not-only clause pair|a lone not-only clause
    not-only clause|correlative pair
    Not only the {noun} was affected|, but much else beside it
a conditional clause without its outcome|an if-clause left hanging
    conditional clause|if-then frame
    If the {noun} had been ready|, things would have gone better
a series of infinitives of equal rank|infinitives strung in a row
    infinitive series|to-verb chain
    To mend the {noun} and to keep it| was the whole plan
a noun in apposition that must be closed|an apposition around a noun
    noun apposition|renaming aside
    The {noun} known to everyone here| had stood for decades
a passive verb that lacks its agent|a passive verb without an agent
    passive verb|agent missing
    The {noun} was taken away| in the small hours
a temporal clause placed in front|a when-clause at the front
    temporal clause|when-opener
    When the {noun} finally opened|, there was a small crowd
an inverted verb after a negative adverb|verb inversion behind a negation
    inverted verb|negative fronting
    Never had the {noun} been so busy|, or so badly run
a comparative clause that calls for than|a comparative adjective in a clause
    comparative clause|more-than frame
    The {noun} proved far more costly| than anybody had guessed
a cleft sentence that puts weight on a noun|a cleft sentence
    cleft sentence|it-was focus
    It was the {noun} they cared about|, and little besides
a participle hung before the main verb|a participial opening
    participle opening|ing-form start
    Standing near the {noun} at dawn|, they counted their losses
a colon that promises an enumeration|an enumeration promised by a colon
    colon enumeration|itemised series
    The {noun} lacked three things|: space and light and time
an indirect question inside a sentence|a whether-clause inside a sentence
    indirect question|whether-frame
    Whether the {noun} can be saved| remains an open matter
a sentence that opens with a prepositional block|a fronted preposition block
    preposition block|locative start
    Beneath the {noun} in the dark| lay something else
""")
)

#: When that happened on which the source breaks off.
WHEN: tuple[str, ...] = options(
    "on Monday|last Tuesday|on Friday night|this autumn|late in June|after lunch|at noon|in January"
    "|two weeks ago|on Sunday|before dawn|in early March|that evening|over the weekend|this week"
    "|in mid October|on Thursday|last winter"
)

#: The first line of an entry is the word, the next two name its role, the others lead to it.
FINAL_WORDS: tuple[FinalWord, ...] = tuple(
    FinalWord(word, value(long, short), tuple(leads))
    for word, long, short, *leads in entries("""
that
    a conjunction introducing reported content|a complementizer
    complementizer|conjunction
    the committee said of the {noun} {when}
    an owner of the {noun} claimed {when}
    critics of the {noun} warned {when}
of
    a preposition linking a noun to its complement|a genitive preposition
    genitive link|preposition
    the {noun} seen {when} was a rare kind
    people near the {noun} spoke {when}
    the keeper of the {noun} grew tired {when}
the
    a definite article before an unnamed noun|a definite determiner
    definite article|determiner
    workers left the {noun} {when} and went to
    the {noun} was moved {when} towards
    a visitor to the {noun} found {when}
including
    a participle opening a list of members|a list opener
    list opener|starts examples
    several faults of the {noun} came up {when}
    the {noun} drew guests {when}
    parts of the {noun} were sold {when}
because
    a causal conjunction before a reason|a conjunction of cause
    causal conjunction|reason marker
    the {noun} was shut {when}
    nobody touched the {noun} {when}
    they praised the {noun} {when}
to
    an infinitive marker before a verb|the particle of an infinitive
    infinitive marker|verb particle
    the crew at the {noun} was asked {when}
    they used the {noun} {when}
    it took the {noun} two attempts {when}
than
    a comparative particle before a standard|the hinge of a comparison
    comparative hinge|comparison word
    the {noun} ran better {when}
    they liked the {noun} less {when}
    the {noun} looked older {when}
a
    an indefinite article before a new noun|an indefinite determiner
    indefinite article|new referent
    inside the {noun} they found {when}
    the {noun} was traded {when} for
    beside the {noun} stood {when}
who
    a pronoun opening a clause about a person|a personal relative pronoun
    relative pronoun|person clause
    the {noun} was shown {when} to a man
    we met at the {noun} {when} a woman
    the {noun} belonged {when} to a family
not
    a negation that leaves the verb open|a negative particle
    negation|denial word
    the {noun} seen {when} was
    owners of the {noun} did {when}
    fans of the {noun} could {when}
and
    a conjunction that adds an equal member|a coordinating link
    coordination|additive link
    they cleaned the {noun} {when}
    the {noun} was weighed {when}
    rain fell on the {noun} {when}
with
    a preposition of company or means|a comitative preposition
    comitative|means word
    the {noun} was repaired {when}
    they filled the {noun} {when}
    he came to the {noun} {when}
for
    a preposition announcing a purpose|a benefactive preposition
    purpose word|benefactive
    the {noun} was kept {when}
    money for the {noun} was raised {when}
    they left the {noun} {when}
which
    a pronoun for a thing just named|a non-personal relative pronoun
    thing pronoun|relative word
    the {noun} had {when} a lid
    next to the {noun} ran {when} a wire
    the {noun} needed {when} a part
from
    a preposition marking an origin|a source preposition
    origin marker|source word
    the {noun} was rescued {when}
    pieces of the {noun} came {when}
    a letter about the {noun} arrived {when}
when
    a temporal conjunction before an event|a time conjunction
    time conjunction|event marker
    the {noun} had cooled {when}
    they were at the {noun} {when}
    the {noun} broke {when}
""")
)
