"""What Redis runs for the cache, each script as one step that nothing comes between.

All take the keys of one request in this order: entry, lease, holder, awaited. `stores.redis` says
what they are for.
"""

from typing import Final

from services.cache.policy import MARK_BYTES, RECORD_VERSION

WRONG_TYPE: Final = "WRONGTYPE"
"""How Redis's error begins where a key holds another type of value than belongs there."""

_MARK_FIRST: Final = len(RECORD_VERSION) + 1
_MARK_LAST: Final = len(RECORD_VERSION) + MARK_BYTES

# ARGV: token, lease ms, awaited ms or 0, marks...
# The entry; or 0: granted; -1: granted after a lease that ended by itself; or how many ms another
# still holds it.
CLAIM = f"""
local entry = redis.call('GET', KEYS[1])
if entry then
  local mark = string.sub(entry, {_MARK_FIRST}, {_MARK_LAST})
  for i = 4, #ARGV do
    if ARGV[i] == mark then return entry end
  end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local lapsed = redis.call('EXISTS', KEYS[3])
  redis.call('SET', KEYS[3], ARGV[1], 'PX', 4 * ARGV[2])
  return -lapsed
end
if ARGV[3] ~= '0' then redis.call('SET', KEYS[4], '1', 'PX', ARGV[3]) end
local left = redis.call('PTTL', KEYS[2])
if left == -1 then return redis.error_reply('{WRONG_TYPE} a lease that does not end') end
return math.max(left, 1)
"""

# ARGV: token or '', record, ttl ms, channel, message.
# 1: stored; 0: another holds the lease; -1: it ended by itself.
PUT = """
if ARGV[1] ~= '' then
  if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
    redis.call('DEL', KEYS[3])
    return -1
  end
  redis.call('DEL', KEYS[2], KEYS[3])
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if redis.call('DEL', KEYS[4]) == 1 then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return 1
"""

# ARGV: token, '1' to keep it if awaited, channel, message. 1: kept; 0: gone.
ABANDON = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local awaited = redis.call('EXISTS', KEYS[4])
if awaited == 1 and ARGV[2] == '1' then return 1 end
redis.call('DEL', KEYS[2], KEYS[3])
if awaited == 1 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return 0
"""

# Drops what no cache has written: another type of value, or one that does not end. How many.
CLEAR = """
local cleared = 0
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and (kind ~= 'string' or redis.call('PTTL', key) == -1) then
    redis.call('DEL', key)
    cleared = cleared + 1
  end
end
return cleared
"""

# ARGV: the value to drop, unless it has been replaced.
DROP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""
