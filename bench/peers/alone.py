"""`python alone.py SECONDS BODY`: prints the CPU microseconds of one call of score.py's run() without any server."""

import sys
import time

import score

score.init()
seconds, body = float(sys.argv[1]), sys.argv[2]
for _ in range(1000):
    score.run(body)
calls, began = 0, time.process_time()
while time.process_time() - began < seconds:
    for _ in range(100):
        score.run(body)
    calls += 100
print((time.process_time() - began) / calls * 1e6)
