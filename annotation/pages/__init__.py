"""Pages about people and about how a project works: accounts, members, settings, guidelines, journal, pace."""
