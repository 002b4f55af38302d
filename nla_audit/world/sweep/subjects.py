"""What planted texts are about: topics, kinds of document, people, places, things counted."""

from __future__ import annotations

from dataclasses import dataclass

from nla_audit.world.sweep.phrasebook import Value, options, value


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


def _topic(long: str, short: str, nouns: str) -> Topic:
    return Topic(value(long, short), options(nouns))


def _genre(long: str, short: str, opener: str) -> Genre:
    return Genre(value(long, short), opener)


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
    _genre(
        "regional newspaper report|local news article", "local news|newspaper", "From our desk:"
    ),
    _genre(
        "encyclopedia-like reference article|encyclopedic entry",
        "encyclopedic|wiki page",
        "Overview.",
    ),
    _genre("first-person travel blog|personal blog post", "blog post|web diary", "Day three."),
    _genre(
        "academic journal abstract|research abstract from a journal",
        "journal abstract|paper",
        "Background.",
    ),
    _genre(
        "step-by-step tutorial for beginners|beginner tutorial or manual",
        "tutorial|how-to",
        "Before you start:",
    ),
    _genre(
        "corporate press release|company press release",
        "press release|publicity copy",
        "For immediate use.",
    ),
    _genre(
        "literary novel excerpt|passage of literary fiction",
        "novel excerpt|fiction",
        "Nobody spoke.",
    ),
    _genre("online forum thread|question on a forum", "forum thread|message board", "Hi all,"),
    _genre(
        "product review for consumers|consumer review of a product",
        "product review|buyer test",
        "Three stars from me.",
    ),
    _genre(
        "interview transcript with questions|transcript of an interview",
        "interview transcript|question round",
        "Question.",
    ),
    _genre(
        "obituary in a national paper|obituary of a public figure",
        "obituary|death notice",
        "Remembered fondly.",
    ),
    _genre(
        "government inquiry report|official report of an inquiry",
        "official report|public inquiry",
        "Part two.",
    ),
    _genre(
        "opinion essay by a columnist|signed opinion essay",
        "opinion essay|editorial",
        "Enough is enough.",
    ),
    _genre(
        "podcast dialogue in writing|dialogue of two radio hosts",
        "podcast dialogue|talk show",
        "Welcome back.",
    ),
    _genre(
        "museum catalogue profile|catalogue text with an artist profile",
        "museum catalogue|exhibit label",
        "Room four.",
    ),
    _genre("classroom textbook chapter|school textbook lesson", "textbook|lesson", "Lesson nine."),
    _genre(
        "fundraising letter to donors|letter asking for gifts",
        "fundraising letter|charity appeal",
        "Dear friend,",
    ),
    _genre(
        "parliamentary speech as recorded|speech held in parliament",
        "parliamentary speech|legislators' debate",
        "Madam Chair,",
    ),
    _genre(
        "property listing with details|real estate listing",
        "property listing|estate agent ad",
        "New on the market:",
    ),
    _genre(
        "biography of a scientist|short biographical sketch",
        "biography|life sketch",
        "Early years.",
    ),
)

GIVEN_NAMES: tuple[str, ...] = options(
    "Amara|Bela|Cedric|Dagny|Elio|Farida|Gustav|Hanna|Imre|Jolanta|Kofi|Lucinda|Mateus|Nadia|"
    "Oskar|Petra|Quentin|Rosalind|Stefan|Tamsin|Ulrich|Veronica|Wendell|Ximena|Yannick|Zelda|"
    "Anselm|Brigitta|Caspian|Delphine|Edmund|Fiorella|Gareth|Hortense|Isidor|Jemima"
)
SURNAMES: tuple[str, ...] = options(
    "Abernathy|Bergstrom|Castellan|Drummond|Eastwick|Fairweather|Grimaldi|Hathersage|Ibsenius|"
    "Jankowski|Kilbride|Lindqvist|Moncrieff|Nakagawa|Okonkwo|Pellegrin|Quarshie|Ravensworth|"
    "Sandoval|Thackeray|Umarova|Vandermeer|Whitlock|Xanthos|Yardley|Zimmerhof|Ashdown|"
    "Bellweather|Corrigan|Dunleavy|Eriksen|Falkenrath|Goodfellow|Hollister|Ingersoll|Juarez|"
    "Kensington|Lockhart|Montague|Norrington|Oyelaran|Prendergast"
)
PLACES: tuple[str, ...] = options(
    "Aldermere|Brackenford|Coldharbour|Drayton|Elsinore|Farleigh|Glenmoor|Haverstock|"
    "Inverlochy|Jutebridge|Kirkwall|Langholm|Marrowby|Netherfield|Ostrava|Penhallow|Quimper|"
    "Rothesay|Skegby|Tavistock|Umbria|Valdivia|Wexcombe|Yarmouth|Zeeland|Ashkelon|Bremerhaven|"
    "Cordoba|Dunmore|Esbjerg|Fremantle|Gdansk|Hallstatt|Iquique|Jaipur|Kumasi"
)
INSTITUTIONS: tuple[str, ...] = options("Institute|Foundation|Council|Society|Trust|College")
#: What a number counts.
UNITS: tuple[str, ...] = options(
    "visitors|kilometres|kilograms|households|euros|volunteers|hectares|samples|pupils|tonnes|"
    "signatures|parcels|metres|seats|gallons|permits"
)
