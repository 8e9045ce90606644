// Runs a program and reads sensors of power meanwhile, after a time of idleness: for programs that know nothing of sensors.
//
//   --watch IDLE_S EVERY_S FILE... -- PROGRAM...            numbers out of files, all of them every EVERY_S seconds
//   --watch IDLE_S EVERY_S --lines COMMAND -- PROGRAM...    what a line of shell prints, as it comes
//
// Beside what the program prints, two lines on stdout. When it starts: {"clock": seconds of CLOCK_MONOTONIC}. When it has ended:
// {"watched": {"idle": [begin, end], "at_s": [...], "values": [[a number or null per file], ...], "lines": [[at_s, text], ...]}}.
#pragma once

namespace bench {

// The arguments that follow --watch. Gives the program's exit status, 128 and the signal's number if one ended it, as a shell does.
int watch(int count, char** arguments);

}  // namespace bench
