"""What ``weir simulate`` is made of: log formats, the reader, the replay and its pictures."""
