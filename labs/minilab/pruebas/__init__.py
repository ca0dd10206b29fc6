"""What the checks are made of, public and hidden alike: cases, plain values, judges and the student's objects."""
