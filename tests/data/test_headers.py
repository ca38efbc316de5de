"""First lines of CSV files: which name columns, and what is refused instead of guessed."""

import pytest

from localgrad import data


def read(tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    return data.csv_file(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (",a,b,label\n0,1,2,u\n1,3,4,v\n", r"column 1 has no name, .* write it with index=False"),  # to_csv()
        (",0,1,2,label\n0,1,2,3,u\n1,3,4,5,v\n", "column 1 has no name"),  # the same of columns without names
        ('"","a","label"\n"1",2,"u"\n"2",3,"v"\n', "column 1 has no name"),  # write.csv of R
        ("Unnamed: 0,a,label\n0,1,u\n1,3,v\n", "column 1 is called 'Unnamed: 0'"),  # read by pandas and written again
        ("Unnamed: 0.1,a,label\n0,1,u\n1,3,v\n", "column 1 is called 'Unnamed: 0.1'"),
        ("a,label,\n1,u,\n3,v,\n", "column 3 has no name"),
        (",2019,label\n0,1,u\n1,2,v\n", r"its first line is \(nothing\), 2019, label: if that is a header"),
    ],
)
def test_numbers_of_rows_are_no_input(text, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, text)


@pytest.mark.parametrize("mark", ["NA", "", "?", "null", "None", "n/a", "-"])
def test_an_example_with_a_missing_value_is_not_taken_for_a_header(mark, tmp_path):
    says = "if it is an example, fill in what is missing"
    with pytest.raises(ValueError, match=says):
        read(tmp_path, f"1,{mark},0\n2,3,1\n4,5,0\n")
    with pytest.raises(ValueError, match=says):
        read(tmp_path, f"{mark},cat\n1,dog\n2,cat\n")
    with pytest.raises(ValueError, match="row 1, column 2: .*; expected a finite number"):
        read(tmp_path, f"1,{mark},0\n2,{mark},1\n4,5,0\n")  # it is there again: an example


def test_a_missing_value_that_python_reads_as_a_number_is_none_either(tmp_path):
    with pytest.raises(ValueError, match="if it is an example, fill in what is missing"):
        read(tmp_path, "1,nan,u\n2,3,v\n")
    with pytest.raises(ValueError, match="row 2: column label is NaN; expected a label"):
        read(tmp_path, "a,label\n1,u\n2,NaN\n")


@pytest.mark.parametrize(
    ("text", "columns", "classes"),
    [
        ("RI,Na,Type\n1,2,x\n3,4,y\n", ("RI", "Na"), ("x", "y")),  # of glass: sodium
        ("1,2,none\n3,4,some\n5,6,none\n", ("1", "2"), ("none", "some")),  # a class of that name
    ],
)
def test_words_for_what_is_missing_may_be_names(text, columns, classes, tmp_path):
    found = read(tmp_path, text)
    assert found.columns == columns and found.label_names == classes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a;b;label\n1;2;u\n3;4;v\n", "its cells are separated by semicolons; expected commas"),
        ("a;b;label\n1,5;2,5;u\n3,5;4,5;v\n", "separated by semicolons.* and decimal points"),
        ("a\tb\tlabel\n1\t2\tu\n3\t4\tv\n", "separated by tabs"),
        ("a|b|label\n1|2|u\n3|4|v\n", "separated by bars"),
    ],
)
def test_another_separator_is_named(text, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, text)


def test_a_bar_in_a_name_separates_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("P(a|b)\n0.5\n0.25\n")
    assert data.read_table(tmp_path / "a.csv").columns == ("P(a|b)",)
