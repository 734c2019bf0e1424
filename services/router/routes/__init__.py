"""Policy files read, checked, versioned and put in force."""
