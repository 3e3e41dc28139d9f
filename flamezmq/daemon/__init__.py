"""Router and worker as services: their signals, their lines, their word to systemd."""
