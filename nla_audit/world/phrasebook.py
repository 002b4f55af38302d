"""What a planted activation can be about: topics, kinds of document, registers, names and so on.

Data only. Each :class:`Value` has ``long`` forms, used where a claim is stated at length, and
``short`` forms, used where it is said tersely. The first short form is cut down from a long one;
the others put the same thing in other words, so that rewording covers the whole range from a
shortened copy to a paraphrase without a word in common.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a fact, in interchangeable long and short forms."""

    long: tuple[str, ...]
    short: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """A subject matter, with the things that its source text speaks of."""

    forms: Value
    #: Singular nouns that follow "the".
    nouns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Genre:
    """A kind of document, with the words that open its source text."""

    forms: Value
    opener: str


@dataclass(frozen=True, slots=True)
class Structure:
    """A syntactic constraint, with the source fragment that raises it (``{noun}`` is filled)."""

    forms: Value
    #: Opens a source sentence; quoted verbatim by the claim.
    fragment: str
    #: Completes that sentence.
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


def _topic(long: str, short: str, nouns: str) -> Topic:
    return Topic(Value(_options(long), _options(short)), _options(nouns))


def _genre(long: str, short: str, opener: str) -> Genre:
    return Genre(Value(_options(long), _options(short)), opener)


def _value(long: str, short: str) -> Value:
    return Value(_options(long), _options(short))


def _options(text: str) -> tuple[str, ...]:
    return tuple(option.strip() for option in text.split("|"))


TOPICS: tuple[Topic, ...] = (
    _topic(
        "coastal flooding and sea defences|floods along the coast and how to hold them back",
        "coastal flooding|sea walls",
        "seawall|tide gauge|marsh|promenade",
    ),
    _topic(
        "beekeeping and the health of hives|bee colonies and their keepers",
        "beekeeping|apiculture",
        "hive|queen bee|apiary|honeycomb",
    ),
    _topic(
        "municipal transit and light rail|trams and urban public transport",
        "city transit|tramways",
        "tramline|depot|timetable|platform",
    ),
    _topic(
        "kidney transplants and donor matching|organ donation for renal patients",
        "kidney transplants|renal donors",
        "donor|surgeon|dialysis ward|graft",
    ),
    _topic(
        "amateur astronomy and homemade telescopes|stargazing with small telescopes",
        "amateur astronomy|backyard skywatching",
        "telescope|eyepiece|nebula|observatory",
    ),
    _topic(
        "sourdough baking and flour milling|bread making with wild yeast",
        "sourdough baking|artisan loaves",
        "starter|oven|crust|mill",
    ),
    _topic(
        "chess openings and endgame study|competitive chess preparation",
        "chess openings|board game tactics",
        "gambit|rook|bishop|tournament",
    ),
    _topic(
        "semiconductor factories and chip supply|the making of silicon wafers",
        "chip supply|microelectronics fabs",
        "wafer|foundry|cleanroom|lithography tool",
    ),
    _topic(
        "maritime salvage and shipwrecks|the recovery of sunken vessels",
        "shipwreck salvage|raising lost hulls",
        "wreck|hull|tugboat|cargo hold",
    ),
    _topic(
        "school meals and child nutrition|lunches served to pupils",
        "school meals|canteen food",
        "canteen|lunch menu|dietician|kitchen",
    ),
    _topic(
        "medieval manuscripts and their conservation|the care of illuminated parchment",
        "medieval manuscripts|old vellum",
        "parchment|scribe|binding|monastery",
    ),
    _topic(
        "wildfire season and forest management|controlled burning in woodland",
        "wildfire season|bushfires",
        "firebreak|canopy|ranger|lookout tower",
    ),
    _topic(
        "cricket county matches and bowling|the county championship in cricket",
        "county cricket|bat and ball sport",
        "wicket|bowler|pavilion|innings",
    ),
    _topic(
        "pension funds and retirement savings|the investment of workers' pensions",
        "pension funds|nest eggs",
        "trustee|annuity|portfolio|actuary",
    ),
    _topic(
        "password managers and account security|protecting logins from theft",
        "password managers|credential safety",
        "vault|passkey|browser extension|login screen",
    ),
    _topic(
        "glacier retreat in high mountains|melting ice in alpine valleys",
        "glacier retreat|vanishing icefields",
        "moraine|icefall|meltwater|crevasse",
    ),
    _topic(
        "vineyards and natural wine|winemaking without additives",
        "natural wine|viticulture",
        "cellar|vintage|cooper|grape press",
    ),
    _topic(
        "jazz improvisation and big bands|swing orchestras and their soloists",
        "jazz improvisation|swing music",
        "trumpet|saxophone|ballroom|rhythm section",
    ),
    _topic(
        "electric ferries and harbour emissions|battery ships in port",
        "electric ferries|clean shipping",
        "ferry|quay|charging mast|gangway",
    ),
    _topic(
        "migratory birds and wetland reserves|waterfowl on their long flights",
        "migratory birds|wildfowl journeys",
        "heron|reedbed|flyway|hide",
    ),
    _topic(
        "antique clocks and watch repair|the restoration of mechanical timepieces",
        "watch repair|horology",
        "escapement|mainspring|dial|workbench",
    ),
    _topic(
        "housing cooperatives and rent control|tenants who own their buildings together",
        "housing cooperatives|rental affordability",
        "tenant|landlord|stairwell|courtyard",
    ),
    _topic(
        "volcano monitoring and ash clouds|seismic watch over active craters",
        "volcano monitoring|eruptions",
        "crater|seismometer|lava dome|ash plume",
    ),
    _topic(
        "knitting patterns and wool dyeing|handmade jumpers and coloured yarn",
        "wool dyeing|yarn crafts",
        "skein|needle|loom|dye bath",
    ),
    _topic(
        "marathon training and injury|preparing runners for long races",
        "marathon training|distance running",
        "runner|coach|knee brace|finish line",
    ),
    _topic(
        "satellite launches and orbital debris|rockets and junk in orbit",
        "satellite launches|spaceflight",
        "booster|launchpad|fairing|antenna",
    ),
    _topic(
        "cheese ageing and alpine dairies|mountain creameries and ripening caves",
        "cheese ageing|dairy maturing",
        "rind|creamery|goat herd|cave",
    ),
    _topic(
        "archaeology of ancient roads|digs along paved highways of antiquity",
        "ancient roads|antiquity excavations",
        "trench|mosaic|milestone|excavator",
    ),
    _topic(
        "speech therapy for stroke patients|recovering language after a stroke",
        "speech therapy|aphasia care",
        "therapist|clinic|waiting room|caregiver",
    ),
    _topic(
        "urban foxes and city wildlife|wild animals between houses",
        "urban foxes|town fauna",
        "vixen|den|garden shed|alleyway",
    ),
    _topic(
        "board elections at a credit union|voting in a member-owned bank",
        "credit union elections|mutual lenders",
        "ballot|teller|branch|loan officer",
    ),
    _topic(
        "coral nurseries and reef recovery|growing corals to mend reefs",
        "coral nurseries|reef rescue",
        "polyp|diver|lagoon|reef wall",
    ),
    _topic(
        "puppet theatre and stage craft|marionettes and those who move them",
        "puppet theatre|marionette shows",
        "puppeteer|curtain|workshop|lantern",
    ),
    _topic(
        "rural broadband and fibre cables|fast internet for remote villages",
        "rural broadband|countryside connectivity",
        "fibre cabinet|router|mast|trench digger",
    ),
    _topic(
        "railway bridges and steel fatigue|the ageing of iron viaducts",
        "railway bridges|viaduct upkeep",
        "girder|rivet|viaduct|inspector",
    ),
    _topic(
        "perfume making and rare resins|blending scents from plants",
        "perfume making|fragrance craft",
        "resin|still|perfumer|vial",
    ),
)

GENRES: tuple[Genre, ...] = (
    _genre("regional newspaper report|local news article", "local news|newspaper", "From our desk:"),
    _genre("encyclopedia-like reference article|encyclopedic entry", "encyclopedic|wiki page",
           "Overview."),
    _genre("first-person travel blog|personal blog post", "blog post|web diary", "Day three."),
    _genre("academic journal abstract|research abstract from a journal", "journal abstract|paper",
           "Background."),
    _genre("step-by-step tutorial for beginners|beginner tutorial or manual", "tutorial|how-to",
           "Before you start:"),
    _genre("corporate press release|company press release", "press release|publicity copy",
           "For immediate use."),
    _genre("literary novel excerpt|passage of literary fiction", "novel excerpt|fiction",
           "Nobody spoke."),
    _genre("online forum thread|question on a forum", "forum thread|message board", "Hi all,"),
    _genre("product review for consumers|consumer review of a product", "product review|buyer test",
           "Three stars from me."),
    _genre("interview transcript with questions|transcript of an interview",
           "interview transcript|question round", "Question."),
    _genre("obituary in a national paper|obituary of a public figure", "obituary|death notice",
           "Remembered fondly."),
    _genre("government inquiry report|official report of an inquiry",
           "official report|public inquiry", "Part two."),
    _genre("opinion essay by a columnist|signed opinion essay", "opinion essay|editorial",
           "Enough is enough."),
    _genre("podcast dialogue written down|dialogue of two radio hosts", "podcast dialogue|talk show",
           "Welcome back."),
    _genre("museum catalogue profile|catalogue text with an artist profile",
           "museum catalogue|exhibit label", "Room four."),
    _genre("classroom textbook chapter|school textbook lesson", "textbook|lesson", "Lesson nine."),
    _genre("fundraising letter to donors|letter asking for gifts", "fundraising letter|charity appeal",
           "Dear friend,"),
    _genre("parliamentary speech as recorded|speech held in parliament",
           "parliamentary speech|legislators' debate", "Madam Chair,"),
    _genre("property listing with details|real estate listing", "property listing|estate agent ad",
           "New on the market:"),
    _genre("biography of a scientist|short biographical sketch", "biography|life sketch",
           "Early years."),
)  # fmt: skip

STYLES: tuple[Value, ...] = (
    _value("a dry and impersonal tone|an impersonal and matter-of-fact tone",
           "impersonal tone|detached"),
    _value("a warm and chatty register|a friendly and conversational register",
           "chatty register|friendly"),
    _value("ironic and slightly mocking prose|prose with gentle mockery", "ironic prose|sarcasm"),
    _value("formal legalistic diction|formal diction borrowed from statutes",
           "formal diction|lawyerly"),
    _value("breathless promotional style|an excited and selling style",
           "promotional style|sales hype"),
    _value("measured academic style with hedging|cautious academic style",
           "academic style|scholarly caution"),
    _value("nostalgic first-person voice|a wistful first-person voice",
           "nostalgic voice|looking back fondly"),
    _value("blunt colloquial register|rough and colloquial register", "colloquial register|slangy"),
    _value("technical jargon for specialists|dense specialist jargon",
           "technical jargon|expert vocabulary"),
    _value("an urgent warning tone|a tone of alarm and urgency", "urgent tone|alarmed"),
    _value("lyrical prose rich in images|poetic and image-laden prose", "lyrical prose|poetic"),
    _value("neutral third-person voice|an even third-person voice", "third-person voice|neutral"),
    _value("a patient teaching tone|the tone of a patient teacher", "teaching tone|instructive"),
    _value("terse telegraphic style|a clipped and telegraphic style", "telegraphic style|clipped"),
    _value("reverent and solemn tone|a tone of solemn respect", "solemn tone|reverent"),
    _value("playful humorous voice|a joking and humorous voice", "humorous voice|jokey"),
    _value("bureaucratic register full of passives|stiff bureaucratic register",
           "bureaucratic register|officialese"),
    _value("confident persuasive style|a persuasive and self-assured style",
           "persuasive style|self-assured"),
)  # fmt: skip

MOMENTA: tuple[Value, ...] = (
    _value("an escalating dispute|a dispute that keeps escalating", "escalating dispute|quarrel"),
    _value("a slow recovery after a setback|a setback and the slow recovery from it",
           "slow recovery|bouncing back"),
    _value("a move from problem to remedy|a problem first and then its remedy",
           "problem then remedy|towards a fix"),
    _value("growing doubt about the plan|a plan that meets more and more doubt",
           "growing doubt|scepticism"),
    _value("a chronological march through the years|events told year by year",
           "year by year|chronology"),
    _value("a comparison of two rivals|two rivals weighed one with the other",
           "two rivals|head to head"),
    _value("a mystery that nears its answer|a mystery close to being solved",
           "mystery near its answer|revelation"),
    _value("praise giving way to criticism|criticism that replaces early praise",
           "praise to criticism|souring"),
    _value("a build-up of evidence for one claim|evidence piled up for a single claim",
           "evidence piled up|making the case"),
    _value("a journey towards a destination|travel that closes in on a destination",
           "journey|en route"),
    _value("a general rule and then its exceptions|exceptions that qualify a general rule",
           "rule then exceptions|caveats"),
    _value("preparations for a decisive day|a decisive day being prepared",
           "decisive day|getting ready"),
    _value("a warning about rising costs|costs that rise and a warning about them",
           "rising costs|price alarm"),
    _value("a public apology in stages|the stages of a public apology",
           "public apology|saying sorry"),
    _value("a handover from one generation to another|one generation making way for another",
           "generation handover|succession"),
    _value("an experiment from setup to outcome|the outcome of an experiment drawing near",
           "experiment outcome|trial results"),
)  # fmt: skip

EXPECTATIONS: tuple[Expectation, ...] = (
    Expectation(_value("the size of the final bill|how large the final bill is",
                       "final bill|total charge"), ("well over budget", "a record sum")),
    Expectation(_value("the date on which work resumes|when work resumes", "date work resumes|restart"),
                ("early in spring", "before the holidays")),
    Expectation(_value("an explanation of the failure|why the failure happened",
                       "explanation of failure|what went wrong"), ("a faulty valve", "human error")),
    Expectation(_value("a direct quotation from an expert|an expert quoted in full",
                       "expert quotation|spokesperson remark"), ("we were stunned", "nobody knew")),
    Expectation(_value("the winner of the contest|who won the contest", "contest winner|victor"),
                ("the underdog", "a narrow victory")),
    Expectation(_value("a recommendation for readers|advice that readers can use",
                       "advice for readers|practical tip"), ("check twice", "ask a specialist")),
    Expectation(_value("the reaction of local residents|how local residents reacted",
                       "residents reacting|neighbourhood response"), ("deeply divided", "cautious joy")),
    Expectation(_value("the discovery of a hidden flaw|a hidden flaw being discovered",
                       "hidden flaw|secret defect"), ("a hairline crack", "missing bolts")),
    Expectation(_value("a second example of the same sort|another example of that sort",
                       "second example|further instance"), ("a similar case", "one more sample")),
    Expectation(_value("the official position of the ministry|where the ministry stands",
                       "ministry position|government stance"), ("no comment", "full support")),
    Expectation(_value("a definition of the key term|what the key term means",
                       "key term definition|glossary meaning"), ("by this we mean", "in other words")),
    Expectation(_value("the emotional response of the speaker|what the speaker feels",
                       "speaker emotion|feelings"), ("quiet relief", "bitter regret")),
    Expectation(_value("a percentage that measures the change|the change given in percent",
                       "percentage change|rate of growth"), ("roughly half", "a modest rise")),
    Expectation(_value("the name of the successor|who the successor is", "successor name|replacement"),
                ("a trusted deputy", "an outsider")),
    Expectation(_value("the consequences for wildlife|what it means for wildlife",
                       "wildlife consequences|harm to animals"), ("fewer nests", "lost habitat")),
    Expectation(_value("a physical description of the place|how the place looks",
                       "place description|scenery"), ("narrow and dim", "bathed in light")),
    Expectation(_value("the legal grounds of the ruling|the law behind the ruling",
                       "legal grounds|court basis"), ("breach of contract", "undue delay")),
    Expectation(_value("a promise of further funding|more funding being promised",
                       "further funding|extra money"), ("a new grant", "matched donations")),
)  # fmt: skip

STRUCTURES: tuple[Structure, ...] = (
    Structure(_value("a concessive clause that waits for its main clause|an although-clause still open",
                     "open although-clause|concession"),
              "Although the {noun} looked sound", "many thought otherwise"),
    Structure(_value("the first half of a not-only pair of clauses|a not-only clause lacking its partner",
                     "not-only clause|correlative pair"),
              "Not only the {noun} was affected", "but much else beside it"),
    Structure(_value("a conditional clause without its outcome|an if-clause left hanging",
                     "conditional clause|if-then frame"),
              "If the {noun} had been ready", "things would have gone better"),
    Structure(_value("a series of infinitives of equal rank|infinitives strung in a row",
                     "infinitive series|to-verb chain"),
              "To mend the {noun} and to keep it", "was the whole plan"),
    Structure(_value("a noun in apposition that must be closed|an apposition around a noun",
                     "noun apposition|renaming aside"),
              "The {noun} known to everyone here", "had stood for decades"),
    Structure(_value("a passive verb that lacks its agent|a passive verb without an agent",
                     "passive verb|agent missing"),
              "The {noun} was taken away", "in the small hours"),
    Structure(_value("a temporal clause placed in front|a when-clause at the front",
                     "temporal clause|when-opener"),
              "When the {noun} finally opened", "there was a small crowd"),
    Structure(_value("an inverted verb after a negative adverb|verb inversion behind a negation",
                     "inverted verb|negative fronting"),
              "Never had the {noun} been so busy", "or so badly run"),
    Structure(_value("a comparative clause that calls for than|a comparative adjective in a clause",
                     "comparative clause|more-than frame"),
              "The {noun} proved far more costly", "than anybody had guessed"),
    Structure(_value("a cleft sentence that puts weight on a noun|a cleft sentence",
                     "cleft sentence|it-was focus"),
              "It was the {noun} they cared about", "and little besides"),
    Structure(_value("a participle hung before the main verb|a participial opening",
                     "participle opening|ing-form start"),
              "Standing near the {noun} at dawn", "they counted their losses"),
    Structure(_value("a colon that promises an enumeration|an enumeration promised by a colon",
                     "colon enumeration|itemised series"),
              "The {noun} lacked three things", "space and light and time"),
    Structure(_value("an indirect question inside a sentence|a whether-clause inside a sentence",
                     "indirect question|whether-frame"),
              "Whether the {noun} can be saved", "remains an open matter"),
    Structure(_value("a sentence that opens with a prepositional block|a fronted preposition block",
                     "preposition block|locative start"),
              "Beneath the {noun} in the dark", "lay something else"),
)  # fmt: skip

#: A subject that speaks or acts before the source breaks off, and when.
WHEN: tuple[str, ...] = _options(
    "on Monday|last Tuesday|on Friday night|this autumn|late in June|after lunch|at noon|in January"
    "|two weeks ago|on Sunday|before dawn|in early March|that evening|over the weekend|this week"
    "|in mid October|on Thursday|last winter"
)

FINAL_WORDS: tuple[FinalWord, ...] = (
    FinalWord("that", _value("a conjunction introducing reported content|a complementizer",
                             "complementizer|conjunction"),
              ("the committee said of the {noun} {when}", "an owner of the {noun} claimed {when}",
               "critics of the {noun} warned {when}")),
    FinalWord("of", _value("a preposition linking a noun to its complement|a genitive preposition",
                           "genitive link|preposition"),
              ("the {noun} seen {when} was a rare kind", "people near the {noun} spoke {when}",
               "the keeper of the {noun} grew tired {when}")),
    FinalWord("the", _value("a definite article before an unnamed noun|a definite determiner",
                            "definite article|determiner"),
              ("workers left the {noun} {when} and went to", "the {noun} was moved {when} towards",
               "a visitor to the {noun} found {when}")),
    FinalWord("including", _value("a participle opening a list of members|a list opener",
                                  "list opener|starts examples"),
              ("several faults of the {noun} came up {when}", "the {noun} drew guests {when}",
               "parts of the {noun} were sold {when}")),
    FinalWord("because", _value("a causal conjunction before a reason|a conjunction of cause",
                                "causal conjunction|reason marker"),
              ("the {noun} was shut {when}", "nobody touched the {noun} {when}",
               "they praised the {noun} {when}")),
    FinalWord("to", _value("an infinitive marker before a verb|the particle of an infinitive",
                           "infinitive marker|verb particle"),
              ("the crew at the {noun} was asked {when}", "they used the {noun} {when}",
               "it took the {noun} two attempts {when}")),
    FinalWord("than", _value("a comparative particle before a standard|the hinge of a comparison",
                             "comparative hinge|comparison word"),
              ("the {noun} ran better {when}", "they liked the {noun} less {when}",
               "the {noun} looked older {when}")),
    FinalWord("a", _value("an indefinite article before a new noun|an indefinite determiner",
                          "indefinite article|new referent"),
              ("inside the {noun} they found {when}", "the {noun} was traded {when} for",
               "beside the {noun} stood {when}")),
    FinalWord("who", _value("a pronoun opening a clause about a person|a personal relative pronoun",
                            "relative pronoun|person clause"),
              ("the {noun} was shown {when} to a man", "we met at the {noun} {when} a woman",
               "the {noun} belonged {when} to a family")),
    FinalWord("not", _value("a negation that leaves the verb open|a negative particle",
                            "negation|denial word"),
              ("the {noun} seen {when} was", "owners of the {noun} did {when}",
               "fans of the {noun} could {when}")),
    FinalWord("and", _value("a conjunction that adds an equal member|a coordinating link",
                            "coordination|additive link"),
              ("they cleaned the {noun} {when}", "the {noun} was weighed {when}",
               "rain fell on the {noun} {when}")),
    FinalWord("with", _value("a preposition announcing a companion or means|a comitative preposition",
                             "comitative|means word"),
              ("the {noun} was repaired {when}", "they filled the {noun} {when}",
               "he came to the {noun} {when}")),
    FinalWord("for", _value("a preposition announcing a purpose|a benefactive preposition",
                            "purpose word|benefactive"),
              ("the {noun} was kept {when}", "money for the {noun} was raised {when}",
               "they left the {noun} {when}")),
    FinalWord("which", _value("a pronoun for a thing just named|a non-personal relative pronoun",
                              "thing pronoun|relative word"),
              ("the {noun} had {when} a lid", "next to the {noun} ran {when} a wire",
               "the {noun} needed {when} a part")),
    FinalWord("from", _value("a preposition marking an origin|a source preposition",
                             "origin marker|source word"),
              ("the {noun} was rescued {when}", "pieces of the {noun} came {when}",
               "a letter about the {noun} arrived {when}")),
    FinalWord("when", _value("a temporal conjunction before an event|a time conjunction",
                             "time conjunction|event marker"),
              ("the {noun} had cooled {when}", "they were at the {noun} {when}",
               "the {noun} broke {when}")),
)  # fmt: skip

GIVEN_NAMES: tuple[str, ...] = tuple(
    [
        "Amara",
        "Bela",
        "Cedric",
        "Dagny",
        "Elio",
        "Farida",
        "Gustav",
        "Hanna",
        "Imre",
        "Jolanta",
        "Kofi",
        "Lucinda",
        "Mateus",
        "Nadia",
        "Oskar",
        "Petra",
        "Quentin",
        "Rosalind",
        "Stefan",
        "Tamsin",
        "Ulrich",
        "Veronica",
        "Wendell",
        "Ximena",
        "Yannick",
        "Zelda",
        "Anselm",
        "Brigitta",
        "Caspian",
        "Delphine",
        "Edmund",
        "Fiorella",
        "Gareth",
        "Hortense",
        "Isidor",
        "Jemima",
    ]
)
SURNAMES: tuple[str, ...] = tuple(
    [
        "Abernathy",
        "Bergstrom",
        "Castellan",
        "Drummond",
        "Eastwick",
        "Fairweather",
        "Grimaldi",
        "Hathersage",
        "Ibsenius",
        "Jankowski",
        "Kilbride",
        "Lindqvist",
        "Moncrieff",
        "Nakagawa",
        "Okonkwo",
        "Pellegrin",
        "Quarshie",
        "Ravensworth",
        "Sandoval",
        "Thackeray",
        "Umarova",
        "Vandermeer",
        "Whitlock",
        "Xanthos",
        "Yardley",
        "Zimmerhof",
        "Ashdown",
        "Bellweather",
        "Corrigan",
        "Dunleavy",
        "Eriksen",
        "Falkenrath",
        "Goodfellow",
        "Hollister",
        "Ingersoll",
        "Juarez",
        "Kensington",
        "Lockhart",
        "Montague",
        "Norrington",
        "Oyelaran",
        "Prendergast",
    ]
)
PLACES: tuple[str, ...] = tuple(
    [
        "Aldermere",
        "Brackenford",
        "Coldharbour",
        "Drayton",
        "Elsinore",
        "Farleigh",
        "Glenmoor",
        "Haverstock",
        "Inverlochy",
        "Jutebridge",
        "Kirkwall",
        "Langholm",
        "Marrowby",
        "Netherfield",
        "Ostrava",
        "Penhallow",
        "Quimper",
        "Rothesay",
        "Skegby",
        "Tavistock",
        "Umbria",
        "Valdivia",
        "Wexcombe",
        "Yarmouth",
        "Zeeland",
        "Ashkelon",
        "Bremerhaven",
        "Cordoba",
        "Dunmore",
        "Esbjerg",
        "Fremantle",
        "Gdansk",
        "Hallstatt",
        "Iquique",
        "Jaipur",
        "Kumasi",
    ]
)
INSTITUTIONS: tuple[str, ...] = (
    "Institute",
    "Foundation",
    "Council",
    "Society",
    "Trust",
    "College",
)
#: What a number counts.
UNITS: tuple[str, ...] = tuple(
    [
        "visitors",
        "kilometres",
        "kilograms",
        "households",
        "euros",
        "volunteers",
        "hectares",
        "samples",
        "pupils",
        "tonnes",
        "signatures",
        "parcels",
        "metres",
        "seats",
        "gallons",
        "permits",
    ]
)
