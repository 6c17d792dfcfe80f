"""What the lesson explains with: one step in numbers, a cell drawn, exercises that check themselves."""
