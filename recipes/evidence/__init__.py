"""Does it pay? Many short trainings, with gates and without, and the page that tells what they showed."""
