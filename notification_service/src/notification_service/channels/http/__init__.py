"""Calling addresses that users give: only public ones, never redirected, never longer or slower than allowed."""
