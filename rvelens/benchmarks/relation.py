"""A rule on words that decides whether a question is about an action or a place."""

from __future__ import annotations

import re
from itertools import pairwise


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say where something is.
PLACES = _set(
    "on in at above below under underneath beneath over behind beside near inside within outside "
    "between among around against along across by front top bottom left right next close adjacent "
    "middle center centre corner background foreground surrounded surrounding located placed "
    "positioned covering covered containing facing"
)
# Verbs that say how something is there: with a word of place, that word is what is asked.
POSTURES = _set(
    "sit sits sitting sat stand stands standing stood lie lies lying lay laying lean leans leaning "
    "rest rests resting hang hangs hanging hung park parks parked parking kneel kneels kneeling "
    "lined mounted attached"
)
# Verbs of doing in the forms that questions have besides -ing.
ACTIONS = _set(
    "wear wears worn hold holds held carry carries carried ride rides ridden eat eats eaten drink "
    "drinks play plays played use uses used watch watches watched look looks read reads drive drives "
    "driven push pushes pushed pull pulls pulled throw throws thrown catch catches caught kick kicks "
    "hit hits hug hugs kiss kisses touch touches touched cut cuts swim swims fly flies run runs walk "
    "walks jump jumps climb climbs talk talks speak speaks sing sings dance dances "
    "point points pointed dressed feed feeds fed chase chases bite bites lick licks smell smells "
    "sniff grab grabs grip grips lift lifts lead leads pet pets interact interacts smoke smokes"
)
# Nouns and prepositions that end in -ing without being what someone does.
NOT_VERBS = _set(
    "building ceiling clothing painting railing awning string ring king wing swing spring earring "
    "evening morning thing something anything nothing everything lightning wedding during including "
    "icing drawing stocking being having"
)
_STILL = PLACES | POSTURES | NOT_VERBS
_ARTICLES = ("a", "an", "the")


def relation_of(question: str) -> str:
    """The relation that a question asks about: "action", "spatial" or "other".

    The rule uses the question's words without "in the image" (picture, photo, scene), in this order:

    1. action, if it has a verb of doing that does not follow an article ("the drink", "the swimming
       pool"): a word of `ACTIONS`, or one in -ing that is in none of the other lists;
    2. spatial, if it has a word of place (`PLACES`), as in "Is the man sitting on the bench?";
    3. action, if it has a posture without a place, as in "Is the man sitting?";
    4. other.
    """
    text = re.sub(r"\bin (the|this) (image|picture|photo|scene)\b", " ", question.lower())
    words = re.findall(r"[a-z]+", text)
    verbs = {word for before, word in pairwise(["", *words]) if before not in _ARTICLES}
    if any(word in ACTIONS or (word.endswith("ing") and word not in _STILL) for word in verbs):
        return "action"
    if PLACES & set(words):
        return "spatial"
    return "action" if POSTURES & set(words) else "other"
