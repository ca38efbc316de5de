"""Programs that try to break what the library promises."""
