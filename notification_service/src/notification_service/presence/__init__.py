"""Who is there: where every user is connected, over all nodes; what others may see of it; when users were last seen."""
