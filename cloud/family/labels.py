"""What people do, how their joints are called, and how many people an answer can hold."""

BEHAVIOURS = (
    "walk",
    "stand",
    "sit",
    "lie",
    "fall",
    "fight",
    "push",
    "chase",
    "smoke",
    "loiter",
    "help",
)
# COCO's order.
KEYPOINTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
# Most people that one scene, and one answer, can hold.
SLOTS = 5
