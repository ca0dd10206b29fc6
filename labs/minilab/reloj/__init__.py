"""The virtual clock: a world of requests, paged memory and costs that a student's scheduler is played against."""
