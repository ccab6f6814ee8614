"""Stage 5, push: sessions, connections, the users' queues, the other nodes.

`session` and `follower` decide what should happen and do no I/O; `connection` moves bytes; `feed` is one user on this
node; `node` is this process among the others.
"""
