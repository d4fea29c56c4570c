"""First steps: a commented pipeline file, and its records, from a CSV or Parquet file.

Needs pandas and pyarrow (`pip install 'everloop[frames]'`); nothing imports it before it is asked for.
"""

from everloop.first_steps.names import pipeline_name
from everloop.first_steps.plan import Plan, plan_of
from everloop.first_steps.records import Written, write_records
from everloop.first_steps.roles import Wishes
from everloop.first_steps.sample import open_source, take_sample
from everloop.first_steps.text import text_of

__all__ = [
    "Plan",
    "Wishes",
    "Written",
    "open_source",
    "pipeline_name",
    "plan_of",
    "take_sample",
    "text_of",
    "write_records",
]
