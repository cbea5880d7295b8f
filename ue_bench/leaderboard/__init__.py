"""Build the pages of a leaderboard from results, and tables that compare them with papers."""
