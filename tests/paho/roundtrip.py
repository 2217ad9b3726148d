"""Two paho clients, MQTT 3.1.1 or 5: QoS 0, 1 and 2, wildcards, retained messages, a persistent session, a will.

Prints `ok` when everything arrived exactly as it should; otherwise says what did not and exits 1.
"""

import sys
import threading
import time

import paho.mqtt.client as mqtt

HOST, PORT, VERSION = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PROTOCOL = mqtt.MQTTv5 if VERSION == 5 else mqtt.MQTTv311


def client(client_id, clean):
    c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=PROTOCOL,
                    **({} if VERSION == 5 else {"clean_session": clean}))
    c.inbox = []
    c.ready = threading.Event()
    c.session_present = None

    def on_connect(c, userdata, flags, reason, properties):
        c.session_present = flags.session_present
        c.ready.set()

    c.on_connect = on_connect
    c.on_message = lambda c, userdata, m: c.inbox.append((m.topic, bytes(m.payload), m.qos, bool(m.retain)))
    c.on_subscribe = lambda c, *rest: c.ready.set()
    return c


def connect(c, clean=True, expiry=0):
    c.ready.clear()
    if VERSION == 5:
        properties = mqtt.Properties(mqtt.PacketTypes.CONNECT)
        properties.SessionExpiryInterval = expiry
        c.connect(HOST, PORT, keepalive=30, clean_start=clean, properties=properties)
    else:
        c.connect(HOST, PORT, keepalive=30)
    c.loop_start()
    assert c.ready.wait(5), "no CONNACK"


def subscribe(c, topic, qos):
    c.ready.clear()
    c.subscribe(topic, qos)
    assert c.ready.wait(5), "no SUBACK"


def until(condition, what):
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"timed out: {what}")
        time.sleep(0.01)


def leave(c):
    c.disconnect()
    c.loop_stop()


name = f"v{VERSION}-{PORT}"
publisher = client(f"pub-{name}", True)
connect(publisher)

# All QoS levels through both wildcards; a payload of many segments; an empty one.
listener = client(f"sub-{name}", True)
connect(listener)
subscribe(listener, f"{name}/+/x", 2)
subscribe(listener, f"{name}/deep/#", 1)
expected = []
for qos in (0, 1, 2):
    for payload in (b"", b"small", bytes(range(256)) * 400):
        publisher.publish(f"{name}/a/x", payload, qos).wait_for_publish(5)
        expected.append((f"{name}/a/x", payload, qos, False))
    publisher.publish(f"{name}/deep/er/still", b"down", qos).wait_for_publish(5)
    expected.append((f"{name}/deep/er/still", b"down", min(qos, 1), False))
    publisher.publish(f"{name}/a/y", b"not for us", qos).wait_for_publish(5)
until(lambda: len(listener.inbox) >= len(expected), f"{len(listener.inbox)} of {len(expected)} messages")
time.sleep(0.1)
assert sorted(listener.inbox) == sorted(expected), "other messages than were published"

# Order within one publisher and topic.
listener.inbox.clear()
for i in range(300):
    publisher.publish(f"{name}/a/x", str(i), 1)
until(lambda: len(listener.inbox) >= 300, "300 ordered messages")
assert [int(m[1]) for m in listener.inbox] == list(range(300)), "order was not kept"

# Unsubscribe.
listener.inbox.clear()
listener.unsubscribe(f"{name}/deep/#")
time.sleep(0.2)
publisher.publish(f"{name}/deep/z", b"gone", 1).wait_for_publish(5)
publisher.publish(f"{name}/b/x", b"still", 1).wait_for_publish(5)
until(lambda: listener.inbox, "a message after UNSUBSCRIBE of another filter")
time.sleep(0.1)
assert [m[1] for m in listener.inbox] == [b"still"], "UNSUBSCRIBE had no effect"

# Retained: a late subscriber gets it, with the flag; an empty payload clears it.
publisher.publish(f"{name}/state", b"on", 1, retain=True).wait_for_publish(5)
late = client(f"late-{name}", True)
connect(late)
subscribe(late, f"{name}/state", 1)
until(lambda: late.inbox, "the retained message")
assert late.inbox[0][1] == b"on" and late.inbox[0][3], "the retained message lacks its flag"
publisher.publish(f"{name}/state", b"", 1, retain=True).wait_for_publish(5)
leave(late)

# A persistent session keeps its subscription and what was published while it was away.
away = client(f"away-{name}", False)
connect(away, clean=(VERSION == 5), expiry=3600)
subscribe(away, f"{name}/mail", 1)
leave(away)
time.sleep(0.2)
for i in range(20):
    publisher.publish(f"{name}/mail", str(i), 1).wait_for_publish(5)
away = client(f"away-{name}", False)
connect(away, clean=False, expiry=3600)
assert away.session_present, "the session was not kept"
until(lambda: len(away.inbox) >= 20, f"{len(away.inbox)} of 20 queued messages")
assert [int(m[1]) for m in away.inbox] == list(range(20)), "queued messages out of order"
leave(away)

# A will is published when the connection breaks without DISCONNECT.
watcher = client(f"watch-{name}", True)
connect(watcher)
subscribe(watcher, f"{name}/will", 1)
dying = client(f"dying-{name}", True)
dying.will_set(f"{name}/will", b"farewell", 1)
connect(dying)
dying.loop_stop()
dying.socket().close()
until(lambda: watcher.inbox, "the will")
assert watcher.inbox[0][1] == b"farewell"

for c in (watcher, listener, publisher):
    leave(c)
print("ok")
