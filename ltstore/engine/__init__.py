"""One machine or many: workers that each keep a part of the work and are asked for sums over it, or take shards of it.

The one rule: nothing here knows what the workers compute. A caller gives a function that makes a worker's state from a
source and the worker's number, and then functions of that state; results come back in the order of the workers, so that
what is added up from them does not depend on which was first; items that stand for themselves (`Crew.iter_items`) go to
whoever is free. Start reading at `Crew`, then `LocalEngine`, `RayEngine`.
"""

from ltstore.engine.crew import Crew, Engine, Make
from ltstore.engine.local import LocalEngine
from ltstore.engine.opening import ENGINES, open_engine
from ltstore.engine.ray_cluster import RayEngine

__all__ = ["ENGINES", "Crew", "Engine", "LocalEngine", "Make", "RayEngine", "open_engine"]
