"""Names in more than one form: what "Danish" says of Denmark, and "Oct" of October.

A word and its country are one name, however the explanation puts it. Only what is listed is: a rule
of endings would make Julia and Julian one, and "sun" may shine on any day.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

#: A people, and what is called after it.
_PEOPLES = """afghan afghanistan, african africa, alaskan alaska, albanian albania, algerian
    algeria, american america usa, andean andes, angolan angola, antarctic antarctica,
    arab arabia arabian arabic, argentine argentina argentinian, armenian armenia, asian
    asia, athenian athens, australian australia, austrian austria, azerbaijani
    azerbaijan azeri, bahraini bahrain, bangladeshi bangladesh, bavarian bavaria,
    belarusian belarus, belgian belgium, bengali bengal, bolivian bolivia, bosnian
    bosnia, brazilian brazil, british britain uk briton, bulgarian bulgaria, byzantine
    byzantium, californian california, cambodian cambodia, canadian canada, catalan
    catalonia, chilean chile, chinese china, colombian colombia, congolese congo,
    croatian croatia, cuban cuba, cypriot cyprus, czech czechia, danish denmark dane,
    dutch netherlands holland, ecuadorian ecuador, egyptian egypt, english england,
    estonian estonia, ethiopian ethiopia, european europe, faroese faroes faroe, fijian
    fiji, filipino philippines philippine, finnish finland finn, flemish flanders,
    florentine florence, french france, genoese genoa, georgian georgia, german germany,
    ghanaian ghana, greek greece, greenlandic greenland, guatemalan guatemala, haitian
    haiti, hawaiian hawaii, honduran honduras, hungarian hungary, icelandic iceland,
    indian india, indonesian indonesia, iranian iran, iraqi iraq, irish ireland, israeli
    israel, italian italy, jamaican jamaica, japanese japan, jordanian jordan, kazakh
    kazakhstan, kenyan kenya, korean korea, kuwaiti kuwait, laotian laos, latvian
    latvia, lebanese lebanon, libyan libya, lithuanian lithuania, macedonian macedonia,
    malaysian malaysia, maltese malta, mexican mexico, milanese milan, moldovan moldova,
    mongolian mongolia, montenegrin montenegro, moroccan morocco, namibian namibia,
    neapolitan naples, nepali nepal nepalese, nicaraguan nicaragua, nigerian nigeria,
    norwegian norway, omani oman, pakistani pakistan, palestinian palestine, panamanian
    panama, paraguayan paraguay, parisian paris, peruvian peru, polish poland pole,
    portuguese portugal, prussian prussia, qatari qatar, quebecois quebec, roman rome,
    romanian romania, russian russia, rwandan rwanda, samoan samoa, saudi, scottish
    scotland scot scots, senegalese senegal, serbian serbia serb, sicilian sicily,
    singaporean singapore, slovak slovakia, slovenian slovenia slovene, somali somalia,
    soviet ussr, spanish spain spaniard, sudanese sudan, swedish sweden swede, swiss
    switzerland, syrian syria, taiwanese taiwan, tanzanian tanzania, texan texas, thai
    thailand, tibetan tibet, tunisian tunisia, turkish turkey turk, tuscan tuscany,
    ugandan uganda, ukrainian ukraine, uruguayan uruguay, uzbek uzbekistan, venetian
    venice, venezuelan venezuela, viennese vienna, vietnamese vietnam, welsh wales,
    yemeni yemen, zambian zambia, zimbabwean zimbabwe"""
_PEOPLE_OF = {
    word: people
    for people, *others in map(str.split, _PEOPLES.split(","))
    for word in (people, people + "s", *others)
}
#: Months and days, shortened; not as "mar" or "sun", which are words of their own.
_SHORTENED = """jan january, feb february, apr april, jun june, jul july, aug august, sep sept
    september, oct october, nov november, dec december, tue tues tuesday, thu thur thurs thursday,
    fri friday"""
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_ONE_FORM = (
    _PEOPLE_OF
    | {word: whole for *short, whole in map(str.split, _SHORTENED.split(",")) for word in short}
    | {day + "s": day for day in _DAYS}
)
_STATES = {"states": "american", "kingdom": "british"}
_UNITED = re.compile(r"\bunited (states|kingdom)\b")
_WITH_STOPS = re.compile(r"\bU\.\s?(S|K)\.(?:\s?A\.)?")
#: An article or preposition that French and Italian run together with a name.
_ELISION = re.compile("^(?:[ld]|qu|(?:d|n|s)?[ae]ll)'(?=.)")
_OWNER = re.compile("'s$")


def without_stops(text: str) -> str:
    """``text`` with "U.S." as "US"."""
    return _WITH_STOPS.sub(r"U\1", text) if "U." in text else text


def folded(said: Sequence[str], capitals: Collection[str] = ()) -> list[str]:
    """Lower-case words as names are compared by: owners, of a country its people, months in full.

    Args:
        capitals: those that the text has in capitals: else "us" is no country.
    """
    if "united" in said:
        said = _UNITED.sub(lambda match: _STATES[match.group(1)], " ".join(said)).split()
    found = each_folded(said)
    if "us" in capitals:
        found = [_STATES["states"] if word == "us" else word for word in found]
    return found


def each_folded(said: Iterable[str]) -> list[str]:
    """The words one by one, as :func:`folded` has them: "united states" are two."""
    return [_folded(word) if "'" in word else _ONE_FORM.get(word, word) for word in said]


def _folded(word: str) -> str:
    bare = _OWNER.sub("", _ELISION.sub("", word))
    return _ONE_FORM.get(bare, bare)
