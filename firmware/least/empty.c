/* The least program of all: what a board's start-up takes without a model. */
int main(void)
{
    for (;;) {
    }
}
