"""What an attacker learns of a federation: one file an attack, each put to what the federation really released."""
