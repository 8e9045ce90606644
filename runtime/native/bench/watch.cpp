#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "json.h"
#include "machine.h"

namespace bench {
namespace {

constexpr int kUsageStatus = 64, kNotExecutable = 126, kNotFound = 127, kSignalled = 128;
constexpr double kLeastEveryS = 1e-3, kMostIdleS = 600;

struct Orders {
    double idle_s = 0, every_s = 0;
    std::vector<std::string> files;
    const char* lines = nullptr;
    char** program = nullptr;  // ends with a null
};

bool seconds(const char* text, double least, double most, double* value) {
    char* end = nullptr;
    *value = std::strtod(text, &end);
    return end != text && *end == '\0' && *value >= least && *value <= most;
}

bool parse(int count, char** arguments, Orders* orders) {
    if (count < 4 || !seconds(arguments[0], 0, kMostIdleS, &orders->idle_s)) return false;
    if (!seconds(arguments[1], kLeastEveryS, kMostIdleS, &orders->every_s)) return false;
    int i = 2;
    for (; i < count && std::strcmp(arguments[i], "--") != 0; ++i) {
        if (std::strcmp(arguments[i], "--lines") == 0 && i + 1 < count) {
            orders->lines = arguments[++i];
        } else {
            orders->files.emplace_back(arguments[i]);
        }
    }
    orders->program = arguments + i + 1;
    return i + 1 < count;
}

// Starts a program, with stdout into `out` unless that is negative. It dies with us.
pid_t start(char* const* words, int out) {
    const pid_t child = fork();
    if (child != 0) return child;
#if defined(__linux__)
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (out >= 0) dup2(out, STDOUT_FILENO);
    execvp(words[0], words);
    std::fprintf(stderr, "edgewise-bench: %s: %s\n", words[0], std::strerror(errno));
    _exit(errno == ENOENT ? kNotFound : kNotExecutable);
}

class Sensors {
public:
    explicit Sensors(const Orders& orders) : orders_(orders), next_s_(now_s()) {
        int ends[2];
        if (!orders.lines || pipe(ends) != 0) return;
        fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        char shell[] = "sh", option[] = "-c";
        char* const words[] = {shell, option, const_cast<char*>(orders.lines), nullptr};
        program_ = start(words, ends[1]);
        close(ends[1]);
        pipe_ = ends[0];
    }
    Sensors(const Sensors&) = delete;
    Sensors& operator=(const Sensors&) = delete;
    ~Sensors() {
        if (program_ > 0) {
            kill(program_, SIGKILL);
            waitpid(program_, nullptr, 0);
        }
        if (pipe_ >= 0) close(pipe_);
    }

    // Waits for what comes next, at most one interval, and notes it.
    void step() {
        pollfd ready{pipe_, POLLIN, 0};
        const double left_s = std::max(0.0, next_s_ - now_s());
        const int count = poll(&ready, pipe_ >= 0 ? 1 : 0, static_cast<int>(left_s * 1e3 + 0.999));
        if (count > 0) take_lines();
        if (now_s() < next_s_) return;
        next_s_ = std::max(next_s_ + orders_.every_s, now_s());
        if (!orders_.files.empty()) take_numbers();
    }

    void write(Json* json) const {
        json->numbers("at_s", at_s_).open_list("values");
        for (const std::vector<double>& row : values_) json->numbers(nullptr, row);
        json->close_list().open_list("lines");
        for (const auto& line : lines_) json->open_list().number(nullptr, line.first).text(nullptr, line.second).close_list();
        json->close_list();
    }

private:
    void take_numbers() {
        std::vector<double> row;
        const double begin = now_s();
        for (const std::string& file : orders_.files) row.push_back(read_number(file));
        at_s_.push_back((begin + now_s()) / 2);
        values_.push_back(std::move(row));
    }

    void take_lines() {
        char buffer[4096];
        const ssize_t got = read(pipe_, buffer, sizeof buffer);
        if (got <= 0) {  // it has ended
            close(pipe_);
            pipe_ = -1;
            return;
        }
        pending_.append(buffer, static_cast<size_t>(got));
        for (size_t end; (end = pending_.find('\n')) != std::string::npos; pending_.erase(0, end + 1)) {
            lines_.emplace_back(now_s(), pending_.substr(0, end));
        }
    }

    const Orders& orders_;
    double next_s_;
    int pipe_ = -1;
    pid_t program_ = -1;
    std::string pending_;
    std::vector<double> at_s_;
    std::vector<std::vector<double>> values_;
    std::vector<std::pair<double, std::string>> lines_;
};

void say(Json* json) {
    std::printf("%s\n", json->close().str().c_str());
    std::fflush(stdout);
}

}  // namespace

int watch(int count, char** arguments) {
    Orders orders;
    if (!parse(count, arguments, &orders)) {
        std::fprintf(stderr, "edgewise-bench --watch IDLE_S EVERY_S FILE... | --lines COMMAND -- PROGRAM...\n");
        return kUsageStatus;
    }
    Sensors sensors(orders);
    const double begin = now_s();
    while (now_s() < begin + orders.idle_s) sensors.step();
    const double rested = now_s();
    Json clock;
    clock.open().number("clock", rested);
    say(&clock);
    const pid_t child = start(orders.program, -1);
    if (child < 0) {
        std::fprintf(stderr, "edgewise-bench: cannot start a process: %s\n", std::strerror(errno));
        return kNotExecutable;
    }
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) sensors.step();
    Json json;
    json.open().open("watched").open_list("idle").number(nullptr, begin).number(nullptr, rested).close_list();
    sensors.write(&json);
    json.close();
    say(&json);
    return WIFEXITED(status) ? WEXITSTATUS(status) : kSignalled + WTERMSIG(status);
}

}  // namespace bench
