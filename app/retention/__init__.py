"""What is kept for how long, and what is dropped when its time is over."""
