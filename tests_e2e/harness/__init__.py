"""What end-to-end tests see Herald with: its processes, its REST APIs, its sockets and its broker, from outside."""
