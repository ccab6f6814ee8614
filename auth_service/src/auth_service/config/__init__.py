"""How the service is put together: settings, addresses, server, health, commands."""
