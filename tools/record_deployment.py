"""Play the deployments of lesson 11 on this machine and write them down: python tools/record_deployment.py

Needs Flower's environment (it is made, or named by FL_COURSE_FLOWER) and some minutes. Run it when the scenes or the wire change.
"""

import json

from fl_course.deploy.environment import flower
from fl_course.deploy.scenes import RECORDING, play

if __name__ == "__main__":
    story = play(flower())
    RECORDING.write_text(json.dumps(story, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{RECORDING}: {RECORDING.stat().st_size / 1000:.0f} kB")
