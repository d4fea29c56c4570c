"""What every Everloop service needs and none owns."""
