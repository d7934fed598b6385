"""The pages of those who run projects and the site, through HTTP."""
