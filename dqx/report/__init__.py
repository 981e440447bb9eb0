"""What a person sees of a study: statistics, pictures and live views."""
