"""Prometheus metrics of the service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PACKETS = Counter("ruyicam_packets_total", "Packets stored", ["camera"])
REJECTED = Counter("ruyicam_packets_rejected_total", "Packets refused")
WINDOWS = Counter("ruyicam_windows_total", "Windows read by the reasoner", ["effort"])
LAG = Gauge("ruyicam_reasoner_lag_seconds", "How far the windows of a pass lag behind their last packets, median")
HOLDING = Gauge("ruyicam_ingest_holding", "1: packets are not taken, so that devices keep them")
EVENTS = Counter("ruyicam_events_total", "Events opened")
REASONING = Histogram("ruyicam_reasoning_seconds", "Time of one forward pass over a batch of windows")
DELIVERIES = Counter("ruyicam_deliveries_total", "Messages to channels that were tried", ["channel", "state"])
DELETED = Counter("ruyicam_deleted_total", "Rows deleted because of their age", ["table"])
LATENCY = Histogram(
    "ruyicam_packet_to_event_seconds",
    "From the newest packet of a window to its verdict",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
