"""What Herald's services agree on: claims, scopes, requests, events, topology, frames and codes.

The only package both services import. It knows no framework and does no I/O, except for `publisher`, which is an extra
and is not imported here.
"""
