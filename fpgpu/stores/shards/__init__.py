"""The sharded form of a store: each exposure a file of its own, written by any process.

`write_shard` runs in workers and takes no lock; `publish_shards` runs in one coordinator and makes
shards part of the store, all at once, by replacing the small main file with the meta store.
"""

from fpgpu.stores.shards.files import Shard, find_orphans, find_parts, read_shard
from fpgpu.stores.shards.publishing import publish_shards
from fpgpu.stores.shards.writing import write_shard

__all__ = ["Shard", "find_orphans", "find_parts", "publish_shards", "read_shard", "write_shard"]
