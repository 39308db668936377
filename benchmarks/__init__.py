"""Speed and quality as ratios in one run. Each module prints one JSON object as its last line."""
