"""What serving does: answer, load, remember what it answered."""
