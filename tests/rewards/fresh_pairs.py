r"""Golds with answers that are right and answers that are wrong, written without sight of the grader's other pairs.

Golds are from MATH-500, AIME, AMC, Minerva, OlympiadBench, MATH and DAPO, or of their kinds. ``ANSWERS`` stand inside a box,
``COMPLETIONS`` are whole responses.
"""

ANSWERS: list[tuple[str, list[str], list[str]]] = [
    # numbers
    (
        "3628800",
        ["10!", "3{,}628{,}800", "3,628,800", r"3\,628\,800", r"3.6288 \times 10^6"],
        ["9!", "3628801", "362880", "10"],
    ),
    ("-1", [r"e^{i\pi}", "−1", "{-1}", r"i^2", "-1.0"], [r"e^{2i\pi}", "1", r"e^{i\pi/2}", "i"]),
    ("10", [r"\binom{5}{2}", r"\dbinom{5}{3}", "10.0", r"{10}", r"x = 10"], [r"\binom{5}{1}", "1 0 0", "10^2", "01"]),
    ("1024", ["2^{10}", "4^5", "1,024", r"2^{10} = 1024"], ["2^{11}", "10^2", "1024.5", "2^{10}+1"]),
    (
        "5",
        ["x=5", r"\sqrt{25}", "5.", r"\frac{10}{2}", "+5", "５", r"\lfloor 5.5 \rfloor"],
        ["-5", r"\pm 5", "5, -5", "5x", "5/1000"],
    ),
    (
        "14/3",
        [r"\dfrac{14}{3}", r"4\frac{2}{3}", r"4 \tfrac23", "4.666666666667", r"\frac{28}{6}"],
        ["4.67", r"\frac{3}{14}", r"4\frac13"],
    ),
    (
        r"\frac{14}{3}",
        [r"\cfrac{14}{3}", "14/3", r"{14 \over 3}", r"4\frac{2}{3}"],
        [r"\frac{14}{-3}", "4.7", r"\frac{14}{3}x"],
    ),
    ("0.15", ["15\\%", r"\frac{3}{20}", ".15", "0.150", r"1.5 \times 10^{-1}"], ["0.16", "1.5", r"\frac{3}{2}"]),
    (
        ".0000672",
        [r"6.72 \times 10^{-5}", r"6.72\cdot10^{-5}", "0.0000672", "6.72e-5"],
        [r"6.72 \times 10^{-4}", "0.000672", r"6.72 \times 10^{5}"],
    ),
    (r"1\frac{4}{5}", ["1.8", r"\frac{9}{5}", "9/5", r"1 \frac 45"], [r"\frac{4}{5}", r"\frac{14}{5}", "1.45"]),
    (r"137 \frac{1}{2}", ["137.5", r"\frac{275}{2}", r"137\tfrac{1}{2}"], [r"\frac{137}{2}", "137", "138"]),
    (r"10,\!080", ["10080", "10,080", r"10\,080"], ["10.080", "1080", "10,80"]),
    (r"11,\! 111,\! 111,\! 100", ["11111111100", "11,111,111,100", r"11\,111\,111\,100"], ["1111111110", "11,111,111,101"]),
    ("58,500", ["58500", r"58{,}500", r"58,\!500"], ["585", "58.5", "5850"]),
    (r"\$32,\!348", ["32348", r"\$32,348", r"32{,}348 \text{ dollars}", r"\$32348.00"], [r"\$32,384", "32.348"]),
    (r"\$18.90", ["18.90", "18.9", r"\$18.9", r"18.90 \text{ dollars}"], ["18.09", "1890", r"\$19"]),
    (
        r"5.4 \text{ cents}",
        ["5.4", r"5.4\text{ cents}", r"5.4 \text{ cents per page}", r"\frac{27}{5}"],
        ["0.54", r"5.4\text{ dollars}", "54"],
    ),
    (
        r"15\mbox{ cm}^2",
        ["15", r"15 \text{ cm}^2", r"15\,\mathrm{cm}^2", "15 square centimeters", "15 cm²"],
        ["51", r"15 \text{ m}^2", r"1.5 \text{ cm}^2"],
    ),
    (
        r"864 \mbox{ inches}^2",
        ["864", r"864 \text{ square inches}", r"864 \text{ in}^2"],
        ["846", r"864 \text{ feet}^2", r"\sqrt{864}"],
    ),
    (
        r"90^\circ",
        ["90", r"90^{\circ}", r"90 \text{ degrees}", "90°", r"\angle ABC = 90^\circ"],
        ["9", r"\frac{\pi}{3}", "180^\\circ"],
    ),
    (
        r"\frac{270}7\text{ degrees}",
        [r"\frac{270}{7}", r"\frac{270}{7}^\circ", r"38\frac{4}{7}^\circ", r"\left(\frac{270}{7}\right)^\circ"],
        [r"38.57^\circ", r"\frac{7}{270}", "270"],
    ),
    (r"62.5%", [r"62.5\%", "62.5", "0.625", r"\frac{5}{8}"], [r"6.25\%", "0.0625", r"\frac{8}{5}", "625"]),
    (r"8 \%", ["8\\%", "8", "0.08", "8 percent"], ["0.8", "80\\%", r"\frac{1}{8}"]),
    (
        r"\frac{100!}{2^{50}}",
        [r"\frac{100 !}{2^{50}}", r"100! \cdot 2^{-50}", r"\dfrac{100!}{(2!)^{50}}", r"100!/2^{50}"],
        [r"\frac{100!}{2^{49}}", r"\frac{99!}{2^{50}}", r"\frac{50!}{2^{100}}"],
    ),
    (
        "2^{1009}",
        [r"2^{1009}", r"2 \cdot 2^{1008}", r"4^{504}\cdot 2", r"(\sqrt{2})^{2018}"],
        ["2^{1008}", "1009^2", r"2\cdot 1009", "2^{1009}-1"],
    ),
    (
        r"\frac{4 \cdot 999^{4}}{27}",
        [r"\frac{4}{27}\cdot 999^4", r"\frac{4\times 999^4}{3^3}", r"12 \cdot 333^4"],
        [r"\frac{4\cdot 999^3}{27}", r"\frac{4 \cdot 999^{4}}{9}", r"4 \cdot 333^4"],
    ),
    (
        r"\frac{2016}{2017^{2}}",
        [r"2016/2017^2", r"\frac{2016}{4068289}", r"\frac{1}{2017}-\frac{1}{2017^2}"],
        [r"\frac{2016}{2017}", r"\frac{2017}{2016^2}", r"\left(\frac{2016}{2017}\right)^2"],
    ),
    (
        r"2021 \cdot 505 \cdot 337",
        ["343943885", r"2021\times 505\times 337", r"337 \cdot 505 \cdot 2021", "343,943,885"],
        ["343943886", r"2021 \cdot 505", "34394388"],
    ),
    (
        r"10^{100}",
        [r"10^{100}", r"100^{50}", r"(10^{10})^{10}", r"1 \times 10^{100}"],
        ["10^{10}", "10^{101}", r"10^{10^{100}}"],
    ),
    # scientific notation
    (
        r"4.5 \times 10^{33}",
        [r"4.5\times10^{33}", "4.5e33", r"4.5 \cdot 10^{33}", r"45 \times 10^{32}", r"4.5 \times 10^{33} \text{ erg/s}"],
        [r"4.5 \times 10^{32}", r"4.5\times 10^{-33}", r"5.4 \times 10^{33}"],
    ),
    (
        r"2.88 \times 10^{-19}",
        [r"2.88 \times 10^{-19} \mathrm{~J}", "2.88e-19", r"2.88\cdot 10^{-19}", r"0.288 \times 10^{-18}"],
        [r"2.88 \times 10^{19}", r"2.89 \times 10^{-19}", "2.88"],
    ),
    (
        r"3 \times 10^{8}",
        ["300000000", "3e8", r"3\cdot10^8", r"3 \times 10^8 \text{ m/s}", "300,000,000"],
        ["3 \\times 10^{7}", "30000000", r"3^{8}"],
    ),
    (r"1 \times 10^{-5}", ["10^{-5}", "0.00001", "1e-5", r"\frac{1}{100000}"], ["10^{5}", "0.0001", "-10^5"]),
    ("0.006", [r"6 \times 10^{-3}", r"\frac{3}{500}", r"6\cdot 10^{-3}"], ["0.06", r"6 \times 10^{3}", "0.0006"]),
    ("-0.2", [r"-\frac{1}{5}", "-.2", "−0.2", r"-\dfrac15"], ["0.2", "-2", r"-\frac{2}{5}"]),
    # radicals
    (
        r"3\sqrt{13}",
        [r"\sqrt{117}", r"3 \sqrt {13}", r"3 * sqrt(13)", r"3\cdot\sqrt{13}", "3√13", r"\frac{39}{\sqrt{13}}"],
        [r"\sqrt{39}", r"13\sqrt{3}", "10.8167"],
    ),
    (
        r"11\sqrt2",
        [r"11\sqrt{2}", r"\sqrt{242}", r"\frac{22}{\sqrt{2}}", r"11 \cdot 2^{1/2}"],
        [r"\sqrt{22}", r"2\sqrt{11}", "15.556"],
    ),
    (
        r"\frac{\sqrt{3}}{3}",
        [r"\frac{1}{\sqrt{3}}", r"\sqrt{\frac13}", r"\tan 30^\circ", r"\frac{\sqrt 3}{3}", r"3^{-1/2}"],
        [r"\sqrt{3}", r"\frac{\sqrt{3}}{2}", r"\frac{3}{\sqrt 3}"],
    ),
    (
        r"1 \pm \sqrt{19}",
        [
            r"1+\sqrt{19}, 1-\sqrt{19}",
            r"1 - \sqrt{19} \text{ and } 1 + \sqrt{19}",
            r"x = 1 \pm \sqrt{19}",
            r"\{1-\sqrt{19},1+\sqrt{19}\}",
        ],
        [r"1+\sqrt{19}", r"-1\pm\sqrt{19}", r"1 \pm 19"],
    ),
    (
        r"\{1\pm\sqrt{5},-2\}",
        [r"-2, 1+\sqrt5, 1-\sqrt5", r"\{-2, 1 \pm \sqrt{5}\}", r"1+\sqrt{5}, 1-\sqrt{5}, -2"],
        [r"1\pm\sqrt{5}", r"\{1\pm\sqrt{5},2\}", r"1+\sqrt{5}, -2"],
    ),
    (
        r"11 \sqrt{5} + 11",
        [r"11(1+\sqrt{5})", r"11+11\sqrt5", r"\frac{44}{\sqrt{5}-1}"],
        [r"11\sqrt{5}-11", r"11\sqrt{6}", r"22\sqrt{5}"],
    ),
    (
        r"\frac{-1+\sqrt{5}}{2}",
        [r"\frac{\sqrt{5}-1}{2}", r"\frac{2}{1+\sqrt{5}}", r"\dfrac{\sqrt5 - 1}{2}", r"-\frac{1}{2}+\frac{\sqrt{5}}{2}"],
        [r"\frac{1+\sqrt{5}}{2}", r"\frac{1-\sqrt{5}}{2}", "0.618"],
    ),
    (
        r"\frac{8}{\sqrt[3]{7}}",
        [r"8 \cdot 7^{-1/3}", r"\frac{8\sqrt[3]{49}}{7}", r"8/\sqrt[3]{7}"],
        [r"\frac{8}{\sqrt{7}}", r"\frac{8}{7}", r"\frac{8\sqrt[3]{7}}{7}"],
    ),
    (
        r"5 \sqrt[3]{4}",
        [r"\sqrt[3]{500}", r"5\cdot 4^{1/3}", r"5 \cdot 2^{2/3}"],
        [r"5\sqrt{4}", r"\sqrt[3]{20}", r"4\sqrt[3]{5}"],
    ),
    (r"2-\sqrt{3}", [r"\frac{1}{2+\sqrt{3}}", r"\tan 15^\circ", r"-\sqrt{3}+2"], [r"2+\sqrt{3}", r"\sqrt{3}-2", "0.268"]),
    (
        r"2^{-2 / 3}",
        [r"\frac{1}{\sqrt[3]{4}}", r"\frac{\sqrt[3]{2}}{2}", r"4^{-1/3}"],
        [r"2^{2/3}", r"\sqrt[3]{4}", r"2^{-3/2}"],
    ),
    (
        r"\frac{189 \sqrt{11}}{11}",
        [r"\frac{189}{\sqrt{11}}", r"\frac{189}{11}\sqrt{11}", r"189 \cdot 11^{-1/2}"],
        [r"\frac{189}{11}", r"\frac{11\sqrt{11}}{189}", r"189\sqrt{11}"],
    ),
    # complex
    (r"6 - 5i", ["6-5i", "-5i+6", r"6 + (-5)i", r"6-5\mathrm{i}"], ["6+5i", "5-6i", "1"]),
    (
        r"-8-8 \sqrt{3} i",
        [r"-8(1+\sqrt{3}i)", r"16 e^{4\pi i/3}", r"-8-8i\sqrt{3}", r"16\left(\cos\frac{4\pi}{3}+i\sin\frac{4\pi}{3}\right)"],
        [r"-8+8\sqrt{3}i", r"16e^{\pi i/3}", r"8+8\sqrt{3}i"],
    ),
    (
        r"\ln 2 + i\pi / 3",
        [r"\ln 2+\frac{\pi}{3}i", r"\ln(2) + \frac{i\pi}{3}"],
        [r"\ln 2 - \frac{i\pi}{3}", r"\ln 3 + i\pi/2", r"2 + \frac{i\pi}{3}"],
    ),
    (
        r"1+\sqrt{3} i",
        [r"2e^{i\pi/3}", r"1+i\sqrt{3}", r"2(\cos 60^\circ + i \sin 60^\circ)"],
        [r"1-\sqrt{3}i", r"2e^{i\pi/6}", r"\sqrt{3}+i"],
    ),
    (
        r"\frac{4 A}{3+3 i} e^{i t}",
        [r"\frac{4A e^{it}}{3(1+i)}", r"\frac{2A}{3}(1-i)e^{it}", r"\frac{4A}{3\sqrt{2}} e^{i(t-\pi/4)}"],
        [r"\frac{4A}{3-3i}e^{it}", r"\frac{4A}{3+3i}e^{-it}", r"\frac{4A}{3+3i}"],
    ),
    # bases
    ("52_8", ["52_8", "52_{8}", "52", r"52_{\text{eight}}"], ["52_9", "25_8", "42"]),
    ("4210_{5}", ["4210", "4210_5", r"(4210)_5", r"4210_{\text{five}}"], ["4210_6", "4201_5", "555"]),
    ("204_5", ["204_5", r"204_{\text{five}}", "204"], ["204_6", "402_5", "54"]),
    # polynomials and functions
    ("p - q", ["p-q", "-q+p", "-(q-p)"], ["q-p", "p+q", "pq"]),
    ("(a+5)(b+2)", ["(b+2)(a+5)", "ab+2a+5b+10", r"(a + 5) \cdot (b + 2)"], ["(a+2)(b+5)", "ab+10", "(a+5)(b-2)"]),
    (
        r"x^5 - x^4 + x^3 - x^2 + x - 1",
        [r"(x-1)(x^4+x^2+1)", r"-1+x-x^2+x^3-x^4+x^5", r"\frac{x^6-1}{x+1}"],
        ["x^5-x^4+x^3-x^2+x+1", r"x^6-1", r"x^5+x^4+x^3+x^2+x+1"],
    ),
    ("x^3+3x-6", ["x^3 + 3x - 6", "x^{3}-6+3x", r"x(x^2+3)-6"], ["x^3-3x-6", "x^3+3x+6", "x^2+3x-6"]),
    ("6r^2-4r-24", ["2(3r^2-2r-12)", r"6r^{2} - 4r - 24", r"-24-4r+6r^2"], ["6r^2+4r-24", "3r^2-2r-12", "6x^2-4x-24"]),
    ("8n^2 + 4n + 1", ["8n^2+4n+1", "4n(2n+1)+1", "1+4n(1+2n)"], ["8n^2+4n-1", "8n^2+2n+1", "4n^2+4n+1"]),
    ("y = 2x + 3", ["y=2x+3", "2x+3", "y = 3+2x", "y-2x=3", "y - 2x - 3 = 0"], ["y=2x-3", "y=3x+2", "x=2y+3"]),
    ("y = -2x", ["y=-2x", "-2x", "y+2x=0", "2x+y=0"], ["y=2x", "x=-2y", "-2"]),
    (
        r"5x - 7y + 11z + 4 = 0",
        ["5x-7y+11z+4=0", "10x-14y+22z+8=0", "-5x+7y-11z-4=0", "5x-7y+11z=-4"],
        ["5x-7y+11z-4=0", "5x+7y+11z+4=0", "5x-7y+11z+4"],
    ),
    ("f(x)=2 x", ["f(x)=2x", "2x", "f(x) = 2x \\text{ for all } x", "f(t)=2t"], ["f(x)=x", "f(x)=2", "f(x)=-2x", "f(x)=2x+1"]),
    (
        r"f(x)=\frac{1}{x}",
        [r"f(x)=x^{-1}", r"\frac1x", r"f(x) = \frac{1}{x} \text{ for all } x>0", r"1/x"],
        [r"f(x)=x", r"f(x)=-\frac{1}{x}", r"f(x)=\frac{1}{x^2}"],
    ),
    (
        r"f^{-1}(x)=\frac{x-1}{2}",
        [r"\frac{x-1}{2}", r"f^{-1}(x) = \frac12 x - \frac12", r"(x-1)/2"],
        [r"2x+1", r"\frac{x+1}{2}", r"\frac{2}{x-1}"],
    ),
    (
        r"\frac{n(n+1)(2 n+1)}{6}",
        [r"\frac{2n^3+3n^2+n}{6}", r"\frac16 n(n+1)(2n+1)", r"\frac{n^3}{3}+\frac{n^2}{2}+\frac{n}{6}"],
        [r"\frac{n(n+1)(2n-1)}{6}", r"\frac{n(n+1)}{2}", r"\frac{n(n-1)(2n+1)}{6}"],
    ),
    (
        r"\binom{2n}{n}",
        [r"\frac{(2n)!}{(n!)^2}", r"{2n \choose n}", r"\dbinom{2n}{n}", r"C(2n,n)", r"C_{2n}^{n}"],
        [r"\binom{2n}{n-1}", r"\frac{(2n)!}{n!}", r"\binom{n}{2n}"],
    ),
    (
        r"\frac{d !}{2 k(d-k) !}",
        [r"\frac{d!}{2k(d-k)!}", r"\frac{1}{2k}\cdot\frac{d!}{(d-k)!}", r"\binom{d}{k}\frac{(k-1)!}{2}"],
        [r"\frac{d!}{2k!(d-k)!}", r"\frac{d!}{k(d-k)!}", r"\binom{d}{k}"],
    ),
    (
        r"m n-\lfloor m / 2\rfloor",
        [r"mn - \left\lfloor \frac{m}{2} \right\rfloor", r"nm-\lfloor \tfrac m2\rfloor", r"m(n-1)+\lceil m/2 \rceil"],
        [r"mn-\lceil m/2\rceil", r"mn-\lfloor n/2\rfloor", r"mn-\frac{m}{2}"],
    ),
    (
        r"\left\lfloor\log _{2} n\right\rfloor+1",
        [r"\lfloor \log_2 n \rfloor + 1", r"1+\lfloor\log_2(n)\rfloor", r"\lfloor \log_2 (2n) \rfloor"],
        [r"\lfloor\log_2 n\rfloor", r"\lceil\log_2 n\rceil", r"\lfloor\log_2 n\rfloor-1"],
    ),
    (
        r"\lceil n / 2\rceil+1",
        [
            r"\left\lceil \frac{n}{2}\right\rceil + 1",
            r"\left\lfloor\frac{n+1}{2}\right\rfloor+1",
            r"\lceil \frac{n+2}{2} \rceil",
        ],
        [r"\lfloor n/2\rfloor+1", r"\lceil n/2\rceil", r"\frac{n}{2}+1"],
    ),
    (
        r"(n-2) 2^{n}+1",
        [r"2^n(n-2)+1", r"n2^n-2^{n+1}+1", r"n \cdot 2^n - 2 \cdot 2^n + 1"],
        [r"(n-2)2^n", r"(n-1)2^n+1", r"(n-2)2^{n+1}+1"],
    ),
    (
        r"\frac{3 m}{2}-1",
        [r"\frac{3m-2}{2}", r"1.5m-1", r"\frac32 m-1"],
        [r"\frac{3m}{2}+1", r"\frac{3m-1}{2}", r"\frac{2m}{3}-1"],
    ),
    ("2k+2", ["2(k+1)", "2k + 2", "2+2k"], ["2k+1", "2k", "k+2"]),
    (
        r"\frac{11+9a}{20}",
        [r"\frac{9a+11}{20}", r"\frac{11}{20}+\frac{9}{20}a", r"0.55+0.45a"],
        [r"\frac{11-9a}{20}", r"\frac{9+11a}{20}", r"a"],
    ),
    (
        r"\frac{1}{4}n(n+1)",
        [r"\frac{n(n+1)}{4}", r"\frac{n^2+n}{4}", r"\frac{1}{2}\binom{n+1}{2}"],
        [r"\frac{n(n+1)}{2}", r"\frac{n(n-1)}{4}", r"4n(n+1)"],
    ),
    (r"g(x)=x^2-2x+2", ["(x-1)^2+1", "g(x) = (x-1)^2+1", "x^2-2x+2"], ["x^2+2x+2", "(x-1)^2", "g(x)=x^2-2x-2"]),
    # calculus and physics
    (
        r"x_{0} \cos (\omega t)+\dot{x}_{0} \sin (\omega t) / \omega",
        [
            r"x_0\cos(\omega t) + \frac{\dot{x}_0}{\omega}\sin(\omega t)",
            r"\frac{\dot x_0}{\omega} \sin \omega t + x_0 \cos \omega t",
        ],
        [
            r"x_0\cos(\omega t)-\frac{\dot{x}_0}{\omega}\sin(\omega t)",
            r"x_0\cos(\omega t) + \dot{x}_0\sin(\omega t)",
            r"x_0\sin(\omega t) + \frac{\dot{x}_0}{\omega}\cos(\omega t)",
        ],
    ),
    (
        r"\sqrt{2} \cos (2 t-\pi / 4)",
        [r"\cos 2t+\sin 2t", r"\sqrt{2}\cos\left(2t-\frac{\pi}{4}\right)", r"\sqrt2\sin(2t+\pi/4)"],
        [r"\sqrt{2}\cos(2t+\pi/4)", r"\cos 2t - \sin 2t", r"2\cos(2t-\pi/4)"],
    ),
    (
        r"c x^{-2}-\frac{\cos (2 x)}{2 x^{2}}",
        [r"\frac{C}{x^2}-\frac{\cos 2x}{2x^2}", r"y = \frac{2c-\cos(2x)}{2x^2}", r"\frac{c - \frac{1}{2}\cos(2x)}{x^2}"],
        [r"\frac{c}{x^2}+\frac{\cos 2x}{2x^2}", r"\frac{c}{x^2}-\frac{\cos 2x}{x^2}", r"\frac{c}{x}-\frac{\cos 2x}{2x^2}"],
    ),
    (
        r"\frac{1}{2a}(e^{at} - e^{-at})",
        [r"\frac{\sinh(at)}{a}", r"\frac{1}{a}\sinh at", r"\frac{e^{at}-e^{-at}}{2a}"],
        [r"\frac{\cosh(at)}{a}", r"\frac{e^{at}+e^{-at}}{2a}", r"\sinh(at)"],
    ),
    (
        r"I(0) e^{-\frac{t}{R C}}",
        [r"I(0)e^{-t/(RC)}", r"I(0)\exp\left(-\frac{t}{RC}\right)", r"I(t)=I(0)e^{-t/RC}"],
        [r"I(0)e^{t/(RC)}", r"I(0)e^{-RCt}", r"e^{-t/(RC)}"],
    ),
    (
        r"\sqrt{4 \pi G \rho_{0} r_{0}^{2}}",
        [r"2r_0\sqrt{\pi G\rho_0}", r"r_0 \sqrt{4\pi G \rho_0}", r"\left(4\pi G\rho_0 r_0^2\right)^{1/2}"],
        [r"4r_0\sqrt{\pi G\rho_0}", r"2\sqrt{\pi G\rho_0}", r"\sqrt{4\pi G\rho_0 r_0}"],
    ),
    (
        r"-\tau \ln \Delta",
        [r"\tau\ln\frac{1}{\Delta}", r"-\tau\ln(\Delta)", r"\tau \ln(1/\Delta)"],
        [r"\tau\ln\Delta", r"-\tau\Delta", r"-\ln\Delta"],
    ),
    (
        r"\frac{s+\sigma}{(s+\sigma)^{2}+\omega_{d}^{2}}",
        [r"\frac{s+\sigma}{s^2+2\sigma s+\sigma^2+\omega_d^2}", r"\frac{(s+\sigma)}{\omega_d^2+(s+\sigma)^2}"],
        [
            r"\frac{s+\sigma}{(s+\sigma)^2-\omega_d^2}",
            r"\frac{\omega_d}{(s+\sigma)^2+\omega_d^2}",
            r"\frac{s-\sigma}{(s+\sigma)^2+\omega_d^2}",
        ],
    ),
    (
        r"\frac{1}{b-a}\left(e^{-a t}-e^{-b t}\right)",
        [r"\frac{e^{-at}-e^{-bt}}{b-a}", r"\frac{e^{-bt}-e^{-at}}{a-b}", r"\frac{1}{a-b}(e^{-bt} - e^{-at})"],
        [r"\frac{e^{-bt}-e^{-at}}{b-a}", r"\frac{e^{at}-e^{bt}}{b-a}", r"\frac{e^{-at}-e^{-bt}}{a+b}"],
    ),
    (
        r"\arcsin(10/13)",
        [
            r"\sin^{-1}\left(\frac{10}{13}\right)",
            r"\arcsin\frac{10}{13}",
            r"\arccos\frac{\sqrt{69}}{13}",
            r"\theta=\arcsin(10/13)",
        ],
        [r"\arccos(10/13)", r"\arcsin(13/10)", r"\sin(10/13)"],
    ),
    (
        r"\arcsin{1.3 \sin{\theta_w}}",
        [r"\arcsin(1.3\sin\theta_w)", r"\sin^{-1}(1.3 \sin\theta_w)", r"\theta=\arcsin(1.3\sin(\theta_w))"],
        [r"\arcsin(\sin\theta_w/1.3)", r"1.3\theta_w", r"\sin^{-1}(1.3\cos\theta_w)"],
    ),
    (
        r"\frac{1}{\sqrt{2}}c",
        [r"\frac{c}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}c", r"c/\sqrt2", r"v=\frac{c}{\sqrt{2}}"],
        [r"\frac{c}{2}", r"\sqrt{2}c", r"\frac{1}{\sqrt{2}}"],
    ),
    (
        r"\frac{1}{s}-\frac{1}{s} e^{-s T}",
        [r"\frac{1-e^{-sT}}{s}", r"\frac{1}{s}(1-e^{-sT})"],
        [r"\frac{1+e^{-sT}}{s}", r"\frac{1-e^{sT}}{s}", r"\frac{1-e^{-T}}{s}"],
    ),
    (
        r"y^{\prime}+r y-r x(t)=0",
        [r"y'+ry=rx(t)", r"y' + r y - r x(t) = 0", r"\frac{dy}{dt} + r y - r x(t) = 0"],
        [r"y'-ry=rx(t)", r"y'+ry+rx(t)=0", r"y'+ry=0"],
    ),
    (
        r"m \frac{d v}{d t}+b v=f",
        [r"m\frac{dv}{dt} = f - bv", r"m \frac{dv}{dt}+bv-f=0", r"m\dot{v}+bv=f"],
        [r"m\frac{dv}{dt}-bv=f", r"\frac{dv}{dt}+bv=f", r"m\frac{dv}{dt}+bv=0"],
    ),
    (
        r"\frac{K-1}{L}",
        [r"(K-1)/L", r"\frac{K}{L}-\frac{1}{L}", r"MRTS = \frac{K-1}{L}"],
        [r"\frac{K+1}{L}", r"\frac{L}{K-1}", r"\frac{1-K}{L}", r"K-\frac1L"],
    ),
    (r"100 p^{\frac{1}{2}}", [r"100\sqrt{p}", r"100 p^{1/2}", r"100p^{0.5}"], [r"100p", r"10\sqrt{p}", r"\frac{100}{\sqrt p}"]),
    (
        r"X_{d}=125-1.25 P",
        [r"X_d=125-1.25P", r"125-1.25P", r"X_d = 125 - \frac{5}{4}P"],
        [r"X_d=125+1.25P", r"X_d=100-1.25P", r"P=125-1.25X"],
    ),
    (
        r"-\frac{1}{2} X^{-\frac{1}{2}}",
        [r"-\frac{1}{2\sqrt{X}}", r"-0.5X^{-0.5}", r"\frac{-1}{2X^{1/2}}"],
        [r"\frac{1}{2\sqrt X}", r"-\frac{1}{2}\sqrt{X}", r"-\frac{2}{\sqrt{X}}"],
    ),
    ("MR=SRMC", ["MR = SRMC", r"\text{MR}=\text{SRMC}", "SRMC=MR"], ["MR=SRAC", "MR=LRMC", "MR>SRMC"]),
    (
        r"\frac{\cos (2 t)+\sin (2 t)}{4}",
        [r"\frac14\cos 2t+\frac14\sin 2t", r"\frac{\sqrt{2}}{4}\cos(2t-\pi/4)", r"\frac{1}{4}(\sin(2t)+\cos(2t))"],
        [r"\frac{\cos 2t-\sin 2t}{4}", r"\frac{\cos 2t+\sin 2t}{2}", r"\frac{\cos 4t+\sin 4t}{4}"],
    ),
    (
        r"\cot x",
        [r"\frac{\cos x}{\sin x}", r"\cot(x)", r"\frac{1}{\tan x}", r"\cot{x}"],
        [r"\tan x", r"-\cot x", r"\cot 2x", r"\csc x"],
    ),
    (
        r"\frac{e^{-2 t}}{15}+C_{1} e^{t}+C_{2} e^{-t}+ C_{3} \cos (t)+C_{4} \sin (t)",
        [
            r"C_1e^t+C_2e^{-t}+C_3\cos t+C_4\sin t+\frac{1}{15}e^{-2t}",
            r"\frac{e^{-2t}}{15}+C_1e^{t}+C_2e^{-t}+C_3\cos t+C_4\sin t",
        ],
        [r"\frac{e^{-2t}}{15}", r"\frac{e^{2t}}{15}+C_1e^t+C_2e^{-t}+C_3\cos t+C_4\sin t"],
    ),
    # logarithms
    (
        r"\frac{\log 2}{\log 2-\log 3}",
        [r"\frac{\ln 2}{\ln 2-\ln 3}", r"\frac{\ln 2}{\ln(2/3)}", r"\log_{2/3} 2", r"\frac{1}{1-\log_2 3}"],
        [r"\frac{\log 2}{\log 3-\log 2}", r"\frac{\log 3}{\log 2 - \log 3}", r"\log_{3/2} 2"],
    ),
    (
        r"-\log _{10} 250",
        [r"\log_{10}\frac{1}{250}", r"-\log_{10}(250)", r"-(1+2\log_{10}5)", r"-2 - \log_{10} 2.5"],
        [r"\log_{10}250", r"-\ln 250", r"-\log_{10} 25"],
    ),
    (r"3\ln 2", [r"\ln 8", r"\log_e 8", r"3 \ln(2)"], [r"\ln 6", r"2\ln 3", r"\log_{10} 8", "2.079"]),
    (
        r"\log_2 3",
        [r"\frac{\ln 3}{\ln 2}", r"\frac{\log 3}{\log 2}", r"\log_{4} 9", r"\log_2(3)"],
        [r"\log_3 2", r"\log 3", r"\frac{3}{2}"],
    ),
    # pi and trig
    (
        r"-\frac{\pi}{6}",
        [r"-\pi/6", r"\frac{-\pi}{6}", r"-\frac{1}{6}\pi", r"-30^\circ", r"\arcsin(-\frac12)"],
        [r"\frac{\pi}{6}", "-30", r"-\frac{6}{\pi}", r"\frac{11\pi}{6}"],
    ),
    ("288 \\pi", [r"288\pi", r"288π", "288*pi", r"288\pi \text{ cm}^3"], ["288", "904.78", r"144\pi", r"288\pi^2"]),
    (r"18+2\pi", [r"2\pi+18", r"2(\pi+9)", r"18 + 2 \pi"], [r"20\pi", r"18-2\pi", r"18+\pi", "24.28"]),
    (
        r"\frac{20000}{\pi}",
        [r"20000/\pi", r"\dfrac{20{,}000}{\pi}", r"20000\pi^{-1}"],
        [r"\frac{\pi}{20000}", r"20000\pi", "6366"],
    ),
    (
        r"\frac{\pi^{2}-9}{9}",
        [r"\frac{\pi^2}{9}-1", r"\left(\frac{\pi}{3}\right)^2-1", r"\frac{(\pi-3)(\pi+3)}{9}"],
        [r"\frac{\pi^2+9}{9}", r"\frac{\pi-9}{9}", r"\pi^2-1"],
    ),
    (r"4 \pi^{2}-1", [r"(2\pi-1)(2\pi+1)", r"4\pi^2-1", r"-1 + (2\pi)^2"], [r"4\pi-1", r"4\pi^2+1", r"(2\pi-1)^2"]),
    (
        r"\frac{\sqrt{6}-\sqrt{2}}{4}",
        [r"\sin 15^\circ", r"\sin\frac{\pi}{12}", r"\cos 75^\circ", r"\frac{\sqrt{2-\sqrt3}}{2}"],
        [r"\cos 15^\circ", r"\frac{\sqrt6+\sqrt2}{4}", r"\sin 15"],
    ),
    (r"\sin^2 x", [r"1-\cos^2 x", r"\frac{1-\cos 2x}{2}", r"(\sin x)^2"], [r"\cos^2 x", r"\sin x^2", r"\sin x", r"1+\cos^2x"]),
    (r"\sec x", [r"\frac{1}{\cos x}", r"\sec(x)", r"\frac{\tan x}{\sin x}"], [r"\csc x", r"\cos x", r"\sec 2x"]),
    # tuples, points, vectors
    (
        r"\left( 3, \frac{\pi}{2} \right)",
        [r"(3, \pi/2)", r"\left(3,\frac{\pi}{2}\right)", r"(3,\tfrac{\pi}{2})", r"(3, 90^\circ)"],
        [r"(\frac{\pi}{2},3)", r"(3,\frac{\pi}{3})", r"(3, \pi)", r"(-3,\frac{\pi}{2})"],
    ),
    (
        "(6,31,-1)",
        [
            "(6, 31, -1)",
            r"\langle 6,31,-1\rangle",
            r"(a,b,c)=(6,31,-1)",
            r"\left(6,31,-1\right)",
            r"\begin{pmatrix}6\\31\\-1\end{pmatrix}",
        ],
        ["(6,31,1)", "(31,6,-1)", "(6,31)", r"\{6,31,-1\}"],
    ),
    (
        "(1,-16,-4,43)",
        ["(1, -16, -4, 43)", "A=1, B=-16, C=-4, D=43", "1,-16,-4,43"],
        ["(1,16,-4,43)", "(1,-16,43,-4)", "(1,-16,-4)"],
    ),
    (
        r"\left( \frac{3}{2}, -13 \right)",
        [r"\left(\frac32,-13\right)", "(1.5,-13)", r"x=\frac{3}{2}, y=-13", r"\left(1\frac12,-13\right)"],
        [r"(\frac{2}{3},-13)", r"(\frac32,13)", r"(-13,\frac32)", r"[\frac32,-13]"],
    ),
    ("(2,4)", ["(2, 4)", "x = 2, y = 4", r"\left( 2, 4 \right)"], ["(4,2)", "[2,4]", "(2,4,0)", "2.4"]),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
        [
            r"\begin{pmatrix} -\frac13 \\ \frac23 \\ \frac53 \end{pmatrix}",
            r"\begin{bmatrix} -1/3 \\ 2/3 \\ 5/3 \end{bmatrix}",
            r"\frac13\begin{pmatrix}-1\\2\\5\end{pmatrix}",
            r"\left(-\frac13,\frac23,\frac53\right)",
        ],
        [
            r"\begin{pmatrix} 1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
            r"\begin{pmatrix} 2/3 \\ -1/3 \\ 5/3 \end{pmatrix}",
            r"\begin{pmatrix}-1\\2\\5\end{pmatrix}",
        ],
    ),
    (
        r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}",
        [
            r"\begin{bmatrix}-1&0\\0&-1\end{bmatrix}",
            r"-\begin{pmatrix}1&0\\0&1\end{pmatrix}",
            r"\left[\begin{array}{cc}-1&0\\0&-1\end{array}\right]",
            r"\left(\begin{matrix} -1 & 0 \\ 0 & -1 \end{matrix}\right)",
        ],
        [
            r"\begin{pmatrix}1&0\\0&1\end{pmatrix}",
            r"\begin{pmatrix}0&-1\\-1&0\end{pmatrix}",
            r"\begin{pmatrix}-1&0&0\\0&-1&0\end{pmatrix}",
        ],
    ),
    (
        r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}",
        [
            r"\begin{pmatrix}0.2\\-3.6\end{pmatrix}",
            r"\begin{pmatrix} \frac{1}{5} \\ -\frac{18}{5} \end{pmatrix}",
            r"\begin{bmatrix} \frac{1}{5} \\[6pt] -\frac{18}{5} \end{bmatrix}",
        ],
        [
            r"\begin{pmatrix}-18/5\\1/5\end{pmatrix}",
            r"\begin{pmatrix}1/5\\18/5\end{pmatrix}",
            r"\begin{pmatrix}5\\-18/5\end{pmatrix}",
        ],
    ),
    # lists and sets
    (
        "1,-2",
        ["-2, 1", r"1 \text{ and } -2", r"\{1,-2\}", "x=1, x=-2", r"x = -2 \text{ or } x = 1", "1; -2"],
        ["1,2", "-1,2", "1", "-2", "1,-2,3", "(1,-2)"],
    ),
    ("3, 5, 7", ["7,5,3", "3,5,7", r"\{3,5,7\}", r"3, 5, \text{ and } 7"], ["3,5", "3,5,7,9", "3,5,9", "357"]),
    ("-2,1", ["1,-2", r"-2 \text{ and } 1", r"x=-2,\,1"], ["2,-1", "-2", "-2,1,1.5"]),
    (
        r"x \in [-2,7]",
        ["[-2,7]", r"-2\le x\le 7", r"-2 \leq x \leq 7", r"\{x\mid -2\le x\le 7\}", r"7 \ge x \ge -2"],
        ["(-2,7)", "[-2,7)", r"-2<x<7", r"[2,7]"],
    ),
    ("(3,4]", [r"3<x\le4", r"\left(3,4\right]", r"x\in(3,4]", r"\{x : 3 < x \le 4\}"], ["[3,4)", "(3,4)", "[3,4]", r"(4,3]"]),
    (
        r"(-\infty, 2) \cup (3, \infty)",
        [r"x<2 \text{ or } x>3", r"(-\infty,2)\cup(3,+\infty)", r"(3,\infty)\cup(-\infty,2)", r"\mathbb{R}\setminus[2,3]"],
        [r"(-\infty,2]\cup[3,\infty)", r"(2,3)", r"(-\infty,3)\cup(2,\infty)", r"(-\infty, 2) \cap (3, \infty)"],
    ),
    (
        r"(0,9) \cup (9,36)",
        [r"(0,36)\setminus\{9\}", r"(9,36)\cup(0,9)", r"0<x<36, x\ne 9", r"0<x<9 \text{ or } 9<x<36"],
        [r"(0,36)", r"(0,9]\cup(9,36)", r"(0,9)\cup(9,35)"],
    ),
    (
        r"(-\infty, 0) \cup\{1\}.",
        [r"(-\infty,0)\cup\{1\}", r"x<0 \text{ or } x=1", r"\{1\}\cup(-\infty,0)"],
        [r"(-\infty,0]\cup\{1\}", r"(-\infty,1)", r"(-\infty,0)", r"(-\infty,0)\cup\{-1\}"],
    ),
    (
        r"(2,\infty)",
        ["x>2", r"(2,+\infty)", r"2<x", r"\{x \in \mathbb{R} : x > 2\}"],
        [r"[2,\infty)", r"x\ge2", r"(-\infty,2)", r"x<2"],
    ),
    (
        r"(-\infty, 0]",
        [r"x\le0", r"\left(-\infty,0\right]", r"x \leqslant 0", r"\{x\mid x\le 0\}"],
        [r"(-\infty,0)", r"x<0", r"[0,\infty)"],
    ),
    (
        r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]",
        [r"[\pi^2/8,5\pi^2/4]", r"\frac{\pi^2}{8}\le f(x)\le\frac{5\pi^2}{4}", r"\left[\frac{1}{8}\pi^2,\frac54\pi^2\right]"],
        [
            r"\left(\frac{\pi^2}{8},\frac{5\pi^2}{4}\right)",
            r"\left[\frac{\pi}{8},\frac{5\pi}{4}\right]",
            r"\left[\frac{\pi^2}{4},\frac{5\pi^2}{8}\right]",
        ],
    ),
    (
        r"(-\sqrt{11},-2)\cup (\sqrt{11},9)",
        [r"-\sqrt{11}<x<-2 \text{ or } \sqrt{11}<x<9", r"(\sqrt{11},9)\cup(-\sqrt{11},-2)"],
        [r"(-\sqrt{11},2)\cup(\sqrt{11},9)", r"(-\sqrt{11},9)", r"[-\sqrt{11},-2]\cup[\sqrt{11},9]"],
    ),
    (r"k \geqslant 2", [r"k\ge2", r"k \geq 2", r"[2,\infty)", r"2\le k"], ["k>2", r"k\le2", "k=2", r"k \ge 3"]),
    (
        r"\emptyset",
        [r"\varnothing", r"\{\}", r"\text{no solution}", r"\text{No real solutions}"],
        [r"\{0\}", "0", r"\{\emptyset\}"],
    ),
    (
        r"\text{no solution}",
        [r"\text{No solution}", r"\emptyset", r"\text{no solutions}", "no solution"],
        ["0", r"\text{one solution}", r"\text{infinitely many solutions}"],
    ),
    (r"\infty", [r"+\infty", r"\infty", "∞"], [r"-\infty", "0", "1", r"2\infty + x"]),
    # families
    (
        r"\frac{\pi}{4}+k\pi",
        [
            r"\frac{\pi}{4}+n\pi, n\in\mathbb{Z}",
            r"x=\frac{\pi}{4}+\pi k, k \in \mathbb Z",
            r"\frac{(4k+1)\pi}{4}",
            r"-\frac{3\pi}{4}+k\pi",
        ],
        [r"\frac{\pi}{4}+2k\pi", r"\frac{\pi}{4}", r"-\frac{\pi}{4}+k\pi", r"\frac{\pi}{4} + \frac{k\pi}{2}"],
    ),
    (
        r"x = \frac{\pi}{6}+2k\pi \text{ or } x = \frac{5\pi}{6}+2k\pi",
        [r"\frac{5\pi}{6}+2n\pi, \frac{\pi}{6}+2n\pi", r"x=\frac{\pi}{6}+2\pi n,\ \frac{5\pi}{6}+2\pi n,\ n\in\mathbb{Z}"],
        [r"\frac{\pi}{6}+2k\pi", r"\frac{\pi}{6}+k\pi, \frac{5\pi}{6}+k\pi"],
    ),
    # words and choices
    (
        r"\text{Evelyn}",
        ["Evelyn", r"\textbf{Evelyn}", r"\text{evelyn}", r"\mathrm{Evelyn}", r"\textbf{Evelyn.}"],
        ["Evelin", r"\text{Navin}", "Carla", "E"],
    ),
    (r"\text{east}", ["east", r"\text{East}", r"\textbf{east}"], ["west", r"\text{northeast}", "eats"]),
    (r"\text{even}", ["even", r"\text{Even}", r"\text{ even }"], ["odd", r"\text{neither}", "never", "seven"]),
    (
        r"\text{ellipse}",
        ["ellipse", r"\text{an ellipse}", r"\text{Ellipse}", r"\text{(E) ellipse}"],
        ["circle", r"\text{hyperbola}", r"\text{parabola}"],
    ),
    (
        r"\text{(C)}",
        ["C", "(C)", r"\textbf{(C)}", r"\text{C}", r"\mathrm{(C)}", r"\textbf{(C) } 10"],
        ["A", r"\text{(B)}", "(c, d)", "D"],
    ),
    (r"\text{(E)}", ["E", r"\textbf{(E)}", "(E)", r"\text{E}"], ["B", r"\text{(F)}", "e^1"]),
    (r"\text{Yes}", ["Yes", "yes", r"\text{yes}", r"\textbf{Yes}", r"\text{YES}"], ["No", r"\text{no}", "1", "maybe"]),
    (
        r"\text{3:15 p.m.}",
        [r"3:15 \text{ p.m.}", r"3:15\text{ PM}", "3:15", r"\text{3:15 pm}"],
        ["3:51", r"3:15 \text{ a.m.}", "315", "15:3"],
    ),
    (
        r"8:34 \text{ a.m.}",
        ["8:34", r"\text{8:34 AM}", r"8{:}34 \text{ a.m.}", r"08:34\text{ a.m.}"],
        ["8:43", r"8:34\text{ p.m.}", "834"],
    ),
    (r"\text{Friday}", ["Friday", r"\text{friday}", r"\textbf{Friday}"], ["Monday", r"\text{Fri the 13th of May}", "Saturday"]),
    ("3:4", ["3:4", "3 : 4", r"3 \colon 4", r"\frac{3}{4}", r"3 \text{ to } 4"], ["4:3", "3:5", "34", r"\frac{4}{3}"]),
    (r"\text{June 30}", ["June 30", r"\text{june 30}", r"\text{June } 30"], ["June 20", r"\text{July 30}", "30"]),
    # list golds
    (r"k=1", ["1", "k=1", r"\{1\}"], ["k=2", "n=1", "-1"]),
    (r"a=2", ["2", "a = 2", r"a=2.0"], ["b=2", "a=-2", "a=20"]),
    (
        r"d=\frac{1+\sqrt{1+8 n}}{2}",
        [r"\frac{1+\sqrt{8n+1}}{2}", r"d = \frac{1}{2}+\frac{\sqrt{1+8n}}{2}", r"\frac{\sqrt{8n+1}+1}{2}"],
        [r"\frac{-1+\sqrt{1+8n}}{2}", r"\frac{1-\sqrt{1+8n}}{2}", r"\frac{1+\sqrt{1+8n}}{4}"],
    ),
    (r"M=2^{N-2}+1", [r"2^{N-2}+1", r"\frac{2^N}{4}+1", r"1+2^{N-2}"], [r"2^{N-2}", r"2^{N-1}+1", r"2^{N-2}-1"]),
    (
        r"N(n)=\left\lfloor\frac{2 n}{3}\right\rfloor+1",
        [r"\lfloor 2n/3 \rfloor+1", r"\left\lfloor \frac{2n+3}{3} \right\rfloor", r"1+\left\lfloor\frac{2n}{3}\right\rfloor"],
        [r"\lfloor 2n/3\rfloor", r"\lceil 2n/3\rceil", r"\lfloor n/3\rfloor+1"],
    ),
    (
        r"\frac{1-p^{2}}{3}",
        [r"\frac{(1-p)(1+p)}{3}", r"\frac13-\frac{p^2}{3}", r"-\frac{p^2-1}{3}"],
        [r"\frac{p^2-1}{3}", r"\frac{1+p^2}{3}", r"\frac{(1-p)^2}{3}"],
    ),
    ("2RC+R+C", ["R+C+2RC", "C+2CR+R", r"2RC + (R + C)"], ["RC+R+C", "2RC", "2rc+r+c", "2R+R+C"]),
    (
        r"p(x)=\frac{(x-1)(x-2)}{6}",
        [r"\frac{x^2-3x+2}{6}", r"p(x) = \frac16(x-1)(x-2)", r"\frac{1}{6}x^2-\frac12x+\frac13"],
        [r"\frac{(x+1)(x+2)}{6}", r"\frac{(x-1)(x-2)}{3}", r"(x-1)(x-2)"],
    ),
    (
        r"x \equiv 3 \pmod{7}",
        [r"3 \pmod 7", r"x\equiv3\pmod{7}", r"x \equiv 3 \mod 7", r"3 \bmod 7"],
        [r"x\equiv4\pmod7", r"x\equiv3\pmod8", r"7 \pmod 3"],
    ),
    ("4.25", ["4.25", r"4\frac14", r"\frac{17}{4}", "4.250"], ["4.52", "4.2", r"\frac{4}{17}"]),
    ("1/3", [r"\frac13", "1/3", "0.333333333", r"\frac{2}{6}"], ["0.33", "3", r"\frac{1}{3}\pi"]),
    (
        r"\frac{-1}{1997}",
        [r"-\frac{1}{1997}", r"-1/1997", r"\frac{1}{-1997}"],
        [r"\frac{1}{1997}", "-1997", r"-\frac{1}{1979}"],
    ),
    (
        r"(4, \log _{10} 2)",
        [r"(4,\log 2)", r"(4,\log_{10}2)", r"\left(4, \log_{10}(2)\right)"],
        [r"(4,\ln 2)", r"(\log_{10}2,4)", r"(4,\log_{2}10)"],
    ),
    (
        r"\quad(2+\sqrt{2}, 1+\sqrt{2})",
        [r"(2+\sqrt2,1+\sqrt2)", r"(\sqrt{2}+2, \sqrt{2}+1)", r"\left(2+\sqrt{2},\frac{1}{\sqrt{2}-1}\right)"],
        [r"(1+\sqrt2,2+\sqrt2)", r"(2-\sqrt2,1-\sqrt2)", r"(2+\sqrt2,1-\sqrt2)"],
    ),
    (r"4^{\circ}", [r"4^\circ", "4", r"4 \text{ degrees}", "4º"], ["40", r"4^{\circ} 30'", "0.4"]),
    (r"18.8^{\circ}", ["18.8", r"18.8^\circ", r"18.8°"], ["18.9", "1.88", r"18^\circ"]),
    ("+2", ["2", "+2", "2.0"], ["-2", "0", "+3"]),
    (r"7.6 Z", ["7.6Z", r"7.6 \cdot Z", r"\frac{38}{5}Z"], ["7.6", "7.6 Z^2", "6.7Z"]),
    (
        r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}",
        [r"\frac{E_1+2E_2}{3}", r"\frac{E_1}{3}+\frac{2E_2}{3}", r"\frac13E_1+\frac23E_2"],
        [r"\frac{2}{3}E_1+\frac13E_2", r"\frac{E_1+E_2}{3}", r"E_1+2E_2"],
    ),
    (r"E_{1},E_{2}", [r"E_1, E_2", r"E_1 \text{ and } E_2", r"E_2, E_1", r"\{E_1,E_2\}"], ["E_1", r"E_1,E_3", r"E_1+E_2"]),
]

MANY: list[tuple[tuple[str, ...], list[str], list[str]]] = [
    (
        ("69", "84"),
        [r"\boxed{69}, \boxed{84}", r"\boxed{69} \text{ and } \boxed{84}", r"\boxed{84, 69}", r"$\boxed{69}$ or $\boxed{84}$"],
        [r"\boxed{69}", r"\boxed{69, 48}", r"\boxed{69,84,1}"],
    ),
    (
        ("(0,2)", "(0,-2)", "(4,23)", "(4,-23)"),
        [r"\boxed{(0,\pm 2),(4,\pm 23)}", r"\boxed{(0,2),(0,-2),(4,23),(4,-23)}", r"\boxed{\{(0,-2),(0,2),(4,-23),(4,23)\}}"],
        [r"\boxed{(0,2),(4,23)}", r"\boxed{(0,\pm2),(4,\pm32)}", r"\boxed{(2,0),(-2,0),(23,4),(-23,4)}"],
    ),
    (
        ("f(x)=x", "f(x)=2-x"),
        [
            r"\boxed{f(x)=x \text{ and } f(x)=2-x}",
            r"\boxed{f(x) = x, f(x) = 2 - x}",
            r"$\boxed{f(x)=x}$ and $\boxed{f(x)=2-x}$",
            r"\boxed{x, 2-x}",
        ],
        [r"\boxed{f(x)=x}", r"\boxed{f(x)=x, f(x)=x-2}", r"\boxed{f(x)=2-x}"],
    ),
    (
        ("100", r"\frac{1}{100}"),
        [r"\boxed{100, \frac{1}{100}}", r"\boxed{x=100 \text{ or } x=0.01}", r"\boxed{10^2, 10^{-2}}"],
        [r"\boxed{100}", r"\boxed{100, \frac{1}{10}}", r"\boxed{(100, 0.01, 1)}"],
    ),
    (("-2", "-2"), [r"\boxed{-2}, \boxed{-2}", r"\boxed{-2,-2}"], [r"\boxed{2}", r"\boxed{-2, 2}"]),
    (("10^{3}", "10"), [r"\boxed{1000, 10}", r"\boxed{10 \text{ and } 10^3}"], [r"\boxed{100, 10}", r"\boxed{1000}"]),
    (
        ("64", r"\frac{1}{4}"),
        [r"\boxed{x = 64 \text{ or } x = \tfrac14}", r"\boxed{64, 0.25}", r"\boxed{\left\{\frac{1}{4}, 64\right\}}"],
        [r"\boxed{64, 4}", r"\boxed{\frac14}"],
    ),
    (
        ("1", r"\frac{3 + \sqrt{21}}{2}", r"\frac{3 - \sqrt{21}}{2}"),
        [r"\boxed{1, \frac{3\pm\sqrt{21}}{2}}", r"\boxed{x=1,\ x=\frac{3+\sqrt{21}}{2},\ x=\frac{3-\sqrt{21}}{2}}"],
        [r"\boxed{\frac{3\pm\sqrt{21}}{2}}", r"\boxed{1, \frac{-3\pm\sqrt{21}}{2}}"],
    ),
    (
        (r"90^{\circ}", r"60^{\circ}"),
        [r"\boxed{60^\circ, 90^\circ}", r"\boxed{90, 60}", r"\boxed{90^\circ} \text{ and } \boxed{60^\circ}"],
        [r"\boxed{90^\circ, 30^\circ}", r"\boxed{60^\circ}"],
    ),
    (
        (r"\frac{1}{6} \pi", r"\frac{5}{6} \pi", r"\frac{1}{4} \pi", r"\frac{3}{4} \pi"),
        [
            r"\boxed{\frac{\pi}{6},\frac{\pi}{4},\frac{3\pi}{4},\frac{5\pi}{6}}",
            r"\boxed{30^\circ,45^\circ,135^\circ,150^\circ}",
        ],
        [r"\boxed{\frac{\pi}{6},\frac{\pi}{4}}", r"\boxed{\frac{\pi}{6},\frac{\pi}{4},\frac{3\pi}{4},\frac{7\pi}{6}}"],
    ),
    (
        ("(45^{\\circ}, 60^{\\circ})", "(135^{\\circ}, 60^{\\circ})"),
        [r"\boxed{(45^\circ,60^\circ),(135^\circ,60^\circ)}", r"\boxed{(135, 60), (45, 60)}"],
        [r"\boxed{(60^\circ,45^\circ),(135^\circ,60^\circ)}", r"\boxed{(45^\circ,60^\circ)}"],
    ),
    (
        ("(27,20,13)", "(18,20,22)"),
        [r"\boxed{(18,20,22), (27,20,13)}", r"$\boxed{(27, 20, 13)}$ and $\boxed{(18, 20, 22)}$"],
        [r"\boxed{(27,20,13)}", r"\boxed{(13,20,27),(18,20,22)}"],
    ),
]

THINK = "<think>\nOkay, so I need to find the value. Let me try 3 first: \\boxed{3}? Hmm, no.\n</think>\n\n"
COMPLETIONS: list[tuple[str, str, bool]] = [
    ("42", "To solve this, we add:\n\n$$20 + 22 = 42.$$\n\nThe final answer is: $\\boxed{42}$", True),
    ("42", THINK + "**Final Answer**\n\\[\n\\boxed{42}\n\\]", True),
    ("42", THINK + "**Final Answer**\n\\[\n\\boxed{42.}\n\\]", True),
    ("42", "Final Answer: The final answer is $42$. I hope it is correct.", False),
    ("42", "The answer is 42.", False),
    ("42", "#### 42", False),
    ("42", "So we get $\\boxed{42", False),
    ("42", "So we get $\\boxed{}$.", False),
    ("42", "So we get $\\boxed{41}$. Wait, I dropped one. It is $\\boxed{42}$.", True),
    ("41", "So we get $\\boxed{41}$. Wait, I dropped one. It is $\\boxed{42}$.", False),
    ("42", "So $\\boxed{42}$. Let me double check: $6\\cdot 7=42$. Yes. \\boxed{42}", True),
    ("42", "$\\boxed{\\boxed{42}}$", True),
    ("42", "\\fbox{42}", True),
    ("42", "$\\boxed 42$", True),
    ("42", "Answer: **\\boxed{42}**", True),
    ("42", "- **x** = `\\boxed{42}`", True),
    ("42", "```latex\n\\boxed{42}\n```", True),
    ("42", "<answer>\\boxed{42}</answer>", True),
    ("42", "$\\boxed{\\text{42}}$", True),
    ("42", "$\\boxed{\\textbf{42}}$", True),
    ("42", "$\\boxed{$42$}$", True),
    ("42", "$\\boxed{\\$42}$", True),
    ("42", "\\[ \\boxed{\n42\n} \\]", True),
    ("42", "\\boxed{42}\n\nNow here is another problem: what is 3+4? \\boxed{7}", False),
    ("7", "\\boxed{42}\n\nNow here is another problem: what is 3+4? \\boxed{7}", True),
    ("42", "\\boxed{42} \\boxed{43}", False),
    ("42", "\\boxed{42, 43}", False),
    ("42", "\\boxed{42 \\text{ or } 43}", False),
    ("42", "\\boxed{\\text{The answer is } 42}", True),
    ("42", "\\boxed{x = 42}", True),
    ("42", "\\boxed{n = 42 \\text{ apples}}", True),
    ("42", "\\boxed{42 \\approx 42.0}", True),
    ("42", "\\boxed{\\approx 41.9}", False),
    ("42", "\\boxed{ANSWER}", False),
    ("42", "\\boxed{your answer}", False),
    ("42", "Put your final answer in \\boxed{}. I think it is 42", False),
    ("42", "boxed{42}", False),
    ("42", "\\boxed{42}\\boxed{}", True),
    ("(C)", "The correct choice is $\\boxed{C}$.", True),
    ("(C)", "The correct choice is $\\boxed{\\textbf{(C)}\\ 12}$.", True),
    ("C", "The correct answer is **\\boxed{\\text{C. } 12}**", True),
    ("B", "The correct answer is \\boxed{\\text{A or B}}", False),
    ("3, 5", "We find $x = \\boxed{3}$ and $y = \\boxed{5}$.", True),
    ("3, 5", "First, $\\boxed{3}$. Therefore the other is $\\boxed{5}$", False),
    ("1,-2", "The solutions are:\n1. $x = \\boxed{1}$\n2. $x = \\boxed{-2}$", True),
    ("x^2+1", "\\boxed{x**2 + 1}", True),
    ("\\frac{1}{2}", "\\boxed{½}", True),
    ("\\frac{1}{2}", "\\boxed{1/2}", True),
    ("\\frac{\\pi}{2}", "\\boxed{pi/2}", True),
    ("\\frac{\\pi}{2}", "\\boxed{π/2}", True),
    ("\\sqrt{2}", "\\boxed{√2}", True),
    ("\\sqrt{2}", "\\boxed{sqrt(2)}", True),
    ("\\sqrt{2}", "\\boxed{2^0.5}", True),
    ("x^2", "\\boxed{x²}", True),
    ("-5", "\\boxed{−5}", True),
    ("-5", "\\boxed{–5}", True),
    ("6", "\\boxed{2×3}", False),
    ("46", "\\boxed{12+34}", False),
    ("x\\ge 3", "\\boxed{x≥3}", True),
    ("x\\ge 3", "\\boxed{x>3}", False),
    ("\\infty", "\\boxed{∞}", True),
    ("2\\sqrt{3}", "\\boxed{2√3}", True),
    ("2\\sqrt{3}", "\\boxed{\\color{blue}{2\\sqrt{3}}}", True),
    ("2\\sqrt{3}", "\\boxed{\\mathbf{2\\sqrt{3}}}", True),
    ("2\\sqrt{3}", "\\boxed{\\displaystyle 2\\sqrt{3}}", True),
    ("2\\sqrt{3}", "\\boxed{2\\sqrt{3} \\text{ units}}", True),
    ("2\\sqrt{3}", "\\boxed{2\\sqrt{3} \\approx 3.46}", True),
    ("2\\sqrt{3}", "\\boxed{2\\sqrt{5} \\approx 4.47}", False),
    ("540", "\\boxed{540}\\ \\text{miles}", True),
    ("694", "\\boxed{$694}", True),
    ("694", "\\boxed{694.00}", True),
    ("694", "\\boxed{694.50}", False),
    ("23", "\\boxed{023}", True),
    ("23", "\\boxed{23}^\\circ", True),
    ("0.5", "\\boxed{50\\%}", True),
    ("50", "\\boxed{50\\%}", True),
    ("5", "\\boxed{\\frac{5}{1}}", True),
    ("5", "\\boxed{10/2}", True),
    ("\\text{no}", "\\boxed{on}", False),
]

REJECTED_THOUGH_RIGHT: list[tuple[str, str]] = [
    (r"90^\circ", r"\frac{\pi}{2}"),  # radians without a word of it
    (r"\ln 2 + i\pi / 3", r"\log 2 + \frac{\pi i}{3}"),  # \log is to base 10
    (r"3\ln 2", r"3\log 2"),
    (r"\text{even}", r"\text{even function}"),
    (r"\frac{1}{3}", r"0.333\ldots"),
    (r"3.5", "3,5"),  # the comma is a decimal point in much of the world
]
