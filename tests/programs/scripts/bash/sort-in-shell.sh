a=(5 3 9 1 7); for ((i=0;i<5;i++)) do for ((j=i+1;j<5;j++)) do if ((a[i]>a[j])); then t=${a[i]} a[i]=${a[j]} a[j]=$t; fi; done; done; echo ${a[@]}
