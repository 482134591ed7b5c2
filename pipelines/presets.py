"""Recipes: values of flags for well-known logs. A flag that is given goes before its recipe."""

from typing import Any

from absl import flags

from sitn_tf.errors import InputError

_AMAZON = {
    "user_field": "reviewerID",
    "item_field": "asin",
    "time_field": "unixReviewTime",
    "rating_field": "overall",
    "min_rating": 4.0,
    "min_source_history": 5,
    "max_history": 100,
    "items_item_field": "asin",
}

PRESETS: dict[str, dict[str, Any]] = {
    # McAuley's reviews of 2014: meta files with "categories", a list of paths, many of them
    # with Python literals for lines. Ratings of 4 and more are clicks (paper, Datasets).
    "amazon_2014": {**_AMAZON, "items_categories_field": "categories"},
    # Those of 2018, whose meta files have "category", one path.
    "amazon_2018": {**_AMAZON, "items_categories_field": "category"},
    # Clicks and impressions of several days; both histories longer than 10 (paper, Datasets).
    "industrial": {
        "label_field": "clicked",
        "request_field": "request_id",
        "min_source_history": 11,
        "min_target_history": 11,
        "max_history": 100,
    },
}


def apply(values: flags.FlagValues, name: str) -> None:
    """Sets the flags of a preset that were not given.

    Raises:
      InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"preset={name} is not one of: {', '.join(PRESETS)}")
    for flag, value in PRESETS[name].items():
        if not values[flag].present:
            values[flag].value = value
