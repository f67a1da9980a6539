"""The embedded model's twenty classes and the words that `prompts` may use for them."""

from __future__ import annotations

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_CLOTHES = {
    "T-shirt": ["t-shirt", "tshirt", "tee", "t-shirt/top", "top", "a T-shirt"],
    "trousers": ["trouser", "pants", "jeans", "leggings", "a pair of trousers"],
    "pullover": ["sweater", "jumper", "sweatshirt", "a pullover", "top"],
    "dress": ["gown", "frock", "a dress"],
    "coat": ["jacket", "overcoat", "a coat"],
    "sandal": ["sandals", "flip-flop", "high heel", "shoe", "a sandal"],
    "shirt": ["blouse", "button-up shirt", "a shirt", "top"],
    "sneaker": ["sneakers", "trainer", "running shoe", "tennis shoe", "shoe", "a sneaker"],
    "bag": ["handbag", "purse", "a bag"],
    "ankle boot": ["ankle boots", "boot", "boots", "bootie", "shoe", "an ankle boot"],
}


def synonyms() -> dict[str, list[str]]:
    """Class name to other words for it, in the order of the model's class ids.

    A word that stands under several classes ("shoe", "top") is ambiguous; the reader of prompts says so.
    """
    digits = {
        f"digit {word}": [
            str(i),
            word,
            f"number {word}",
            f"a handwritten {i}",
            f"a handwritten {word}",
            f"the digit {i}",
        ]
        for i, word in enumerate(_DIGITS)
    }
    return {**digits, **_CLOTHES}
