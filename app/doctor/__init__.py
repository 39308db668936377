"""`python -m app doctor`: looks at every back end as API and workers use it, and says what is wrong in plain words."""
