"""Do gates pay? Declared experiments, the records of their trainings, and the page that is made of these."""
