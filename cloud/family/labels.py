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
# What is said of each person: behaviours, whether they are in the picture, and out of sight behind something.
STATES = (*BEHAVIOURS, "inside", "hidden")
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
