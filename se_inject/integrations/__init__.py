"""Gates in other libraries' training loops; each module needs its library, and nothing else imports it."""
